"""fer-train: the trainer's commands, and with `terminal.py` its only place that prints or exits."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from fer_agent.errors import AgentError, UsageError
from fer_trainer.commands import publish
from fer_trainer.terminal import (
    AnyCounts,
    CompileOption,
    DataOption,
    EpochsOption,
    JsonOption,
    KindOption,
    LimitOption,
    MapOption,
    OnlyOption,
    OutOption,
    RecipeOption,
    ResultsOption,
    RowTargetsOption,
    RowTeachersOption,
    SeedsOption,
    SetOption,
    ThreadsOption,
    VotesOption,
    WeightsOption,
    changes_of,
    choose_recipe,
    labels_from,
    measure_rows,
    noise_of,
    print_figures,
    print_json,
    source_of,
    train_run,
)

_TRAINING, _SHIPPING, _PAPER = (
    "Data and training",
    "Judging and shipping",
    "The paper's tables and figures",
)

_GUIDE = """Train, judge and export the networks that fer-agent runs.

\b
From data to a model the agent runs:
  fer-train prepare  --data fer2013.tar.xz
  fer-train train    --recipe coarse --data fer2013.tar.xz --out runs/coarse
  fer-train evaluate runs/coarse     --data fer2013.tar.xz
  fer-train export   runs/coarse     --data fer2013.tar.xz --out models/own
  fer-train quantize models/own      --data fer2013.tar.xz

\b
The paper's training, tables and figures:
  fer-train distill   --recipe paper --data fer2013.tar.xz
  fer-train baselines --data fer2013.tar.xz
  fer-train ablate    --data fer2013.tar.xz --teacher runs/distill/teacher
  fer-train report

\b
A stopped command, given again, goes on where it was. Recipes are `best`,
`coarse`, `paper`, `tests-smoke` or a .toml file; `--set section.switch=value`
changes one switch. The validation split chooses the epoch; the test split is
reported once. Every command has its own `--help`.
"""

app = typer.Typer(
    name="fer-train",
    help=_GUIDE,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(publish.app, name="publish", rich_help_panel=_SHIPPING)


@app.callback(help=_GUIDE)
def _root() -> None:
    pass


@app.command(rich_help_panel=_TRAINING)
def prepare(
    *,
    data: DataOption,
    kind: KindOption = None,
    votes: VotesOption = None,
    label_map: MapOption = None,
    targets: Annotated[
        str, typer.Option(help="label, majority, plurality, distribution.")
    ] = "label",
    any_counts: AnyCounts = False,
    as_json: JsonOption = False,
) -> None:
    """Check a data set, decode it into the cache and say what is in it."""
    from fer_trainer.data.duplicates import find_duplicates
    from fer_trainer.data.faceset import Split
    from fer_trainer.data.open import open_faces

    section = labels_from(targets)
    source = source_of(data, kind, votes, label_map, any_counts=any_counts, limit=0)
    faces = open_faces(source, section)
    found = find_duplicates(faces)
    counts = {
        split.name.lower(): {
            label: int((faces.hard_labels[faces.where(split)] == number).sum())
            for number, label in enumerate(faces.labels)
        }
        for split in Split
    }
    tree = {
        "dataset": faces.name,
        "sha256": faces.sha256,
        "images": len(faces),
        "splits": counts,
        "also_in_training": found.in_training,
        "conflicting_groups": found.conflicting_groups,
    }
    if as_json:
        print_json(tree)
        return
    print(f"{faces.name}: {len(faces):,} images, sha256 {faces.sha256[:16]}")
    for split, classes in counts.items():
        words = ", ".join(f"{label} {count:,}" for label, count in classes.items())
        print(f"  {split:6} {sum(classes.values()):>7,}  {words}")
    for split, count in found.in_training.items():
        print(f"  {count:,} images of {split} also stand in training")
    print(f"  {found.conflicting_groups:,} groups of equal training images disagree on the class")


@app.command(rich_help_panel=_TRAINING)
def train(
    *,
    data: DataOption,
    out: OutOption,
    recipe: RecipeOption = "coarse",
    kind: KindOption = None,
    votes: VotesOption = None,
    label_map: MapOption = None,
    settings: SetOption = None,
    weights: WeightsOption = None,
    epochs: EpochsOption = 0,
    limit: LimitOption = 0,
    any_counts: AnyCounts = False,
    compiled: CompileOption = False,
    threads: ThreadsOption = 0,
) -> None:
    """Train a network on labels."""
    chosen = choose_recipe(recipe, settings, epochs=epochs, compiled=compiled)
    source = source_of(data, kind, votes, label_map, any_counts=any_counts, limit=limit)
    train_run(chosen, source, out, weights=weights, threads=threads)


@app.command(rich_help_panel=_TRAINING)
def teacher(
    *,
    data: DataOption,
    out: OutOption,
    recipe: RecipeOption = "paper",
    kind: KindOption = None,
    votes: VotesOption = None,
    label_map: MapOption = None,
    settings: SetOption = None,
    weights: WeightsOption = None,
    write_targets: Annotated[
        Optional[Path],  # noqa: UP045  # as above
        typer.Option("--write-targets", help="Then write soft targets for distill to this file."),
    ] = None,
    ensemble: Annotated[
        Optional[list[Path]],  # noqa: UP045  # as above
        typer.Option("--with", help="Finished runs that join in the soft targets."),
    ] = None,
    epochs: EpochsOption = 0,
    limit: LimitOption = 0,
    any_counts: AnyCounts = False,
    compiled: CompileOption = False,
    threads: ThreadsOption = 0,
) -> None:
    """Train a teacher with the recipe's teacher switches, and write its soft targets."""
    student = choose_recipe(recipe, settings)
    chosen = choose_recipe(recipe, None).for_teacher()
    chosen = chosen.with_(changes_of(settings, epochs=epochs, compiled=compiled))
    source = source_of(data, kind, votes, label_map, any_counts=any_counts, limit=limit)
    faces = train_run(chosen, source, out, weights=weights, threads=threads)
    from fer_trainer.fabric import best_device, is_first_process
    from fer_trainer.targets import write_targets as write
    from fer_trainer.teachers import open_networks

    if write_targets is None or not is_first_process():
        return
    device = best_device()
    write(
        open_networks([out, *(ensemble or [])], faces.labels, device),
        faces,
        write_targets,
        views=student.distill.views,
        seed=student.train.seed,
        augment_section=student.augment,
        device=device,
        data_section=chosen.data,
    )
    print(f"{student.distill.views} views of each training image in {write_targets}, "
          f"{write_targets.stat().st_size:,} bytes")  # fmt: skip


@app.command(rich_help_panel=_TRAINING)
def distill(
    *,
    data: DataOption,
    out: OutOption = Path("runs/distill"),
    recipe: RecipeOption = "paper",
    teachers: Annotated[
        Optional[list[Path]],  # noqa: UP045  # as above
        typer.Option("--teacher", help="A teacher's run; several teach together."),
    ] = None,
    targets: Annotated[
        Optional[Path],  # noqa: UP045  # as above
        typer.Option("--targets", help="Soft targets from `fer-train teacher --write-targets`."),
    ] = None,
    kind: KindOption = None,
    votes: VotesOption = None,
    label_map: MapOption = None,
    settings: SetOption = None,
    weights: WeightsOption = None,
    epochs: EpochsOption = 0,
    limit: LimitOption = 0,
    any_counts: AnyCounts = False,
    compiled: CompileOption = False,
    threads: ThreadsOption = 0,
) -> None:
    """Train a student under teachers or their soft targets.

    With neither, a teacher is trained first, from scratch, beside the run: in `<out>/teacher`.
    """
    chosen = choose_recipe(recipe, settings, epochs=epochs, compiled=compiled)
    source = source_of(data, kind, votes, label_map, any_counts=any_counts, limit=limit)
    if not teachers and targets is None:
        first = chosen.for_teacher().with_({"network.weights": "scratch"})
        first = first.with_(changes_of(None, epochs=epochs, compiled=compiled))
        train_run(first, source, out / "teacher", threads=threads)
        teachers = [out / "teacher"]
    train_run(
        chosen, source, out, weights=weights, threads=threads, teachers=teachers, targets=targets
    )


@app.command(rich_help_panel=_SHIPPING)
def evaluate(
    *,
    paths: Annotated[
        list[Path], typer.Argument(help="Runs, checkpoints, model folders or targets files.")
    ],
    data: DataOption,
    kind: KindOption = None,
    votes: VotesOption = None,
    targets: Annotated[
        str | None,
        typer.Option(
            help="label, or of FER+'s votes: plurality, majority, agreed (more than 5 of 10 "
            "voters); by default as it was trained."
        ),
    ] = None,
    label_map: MapOption = None,
    split: Annotated[str, typer.Option(help="test or valid.")] = "test",
    protocol: Annotated[str, typer.Option(help="single, flip or ten-crop.")] = "single",
    precision: Annotated[str, typer.Option(help="Of model folders: fp32, int8, fp16.")] = "fp32",
    any_counts: AnyCounts = False,
    limit: LimitOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Judge runs or models on a split that did not choose them; several give mean and deviation."""
    from fer_trainer import evaluate as judge
    from fer_trainer.data.faceset import Split
    from fer_trainer.data.open import open_faces
    from fer_trainer.protocols import PROTOCOLS

    if protocol not in PROTOCOLS:
        raise UsageError(f"there is no protocol {protocol!r}", remedy=f"use {', '.join(PROTOCOLS)}")
    if split not in {"test", "valid"}:
        raise UsageError(f"there is no split {split!r} to report", remedy="use test or valid")
    source = source_of(data, kind, votes, label_map, any_counts=any_counts, limit=limit)
    found = []
    for path in paths:
        subject = judge.open_subject(path)
        section = labels_from(targets) if targets else subject.data
        found.append(
            judge.evaluate(
                subject,
                open_faces(source, section),
                split=Split.parse(split),
                protocol=next(one for one in PROTOCOLS if one == protocol),
                precision=precision,
            )
        )
    if as_json:
        over = judge.over_seeds(found) if len(found) > 1 else None
        print_json({"evaluations": [one.as_json() for one in found], "over_runs": over})
        return
    for one in found:
        print_figures(one)
    if len(found) > 1:
        over = judge.over_seeds(found)
        print(f"over {over['runs']} runs: accuracy {over['accuracy_mean']:.4f} "
              f"± {over['accuracy_deviation']:.4f}")  # fmt: skip


@app.command(rich_help_panel=_SHIPPING)
def export(
    *,
    run: Annotated[Path, typer.Argument(help="Run folder, or a checkpoint file.")],
    data: DataOption,
    out: Annotated[Path, typer.Option("--out", help="Model folder; its name names the model.")],
    kind: KindOption = None,
    votes: VotesOption = None,
    label_map: MapOption = None,
    version: Annotated[str, typer.Option(help="Version of the model.")] = "1.0.0",
    keep: Annotated[
        Optional[Path],  # noqa: UP045  # as above
        typer.Option(help="Also write a small checkpoint here, for `train --weights`."),
    ] = None,
    draft: Annotated[
        bool, typer.Option(help="Of an unfinished run: leave the test alone.")
    ] = False,
    any_counts: AnyCounts = False,
    limit: LimitOption = 0,
) -> None:
    """Write the model folder that the agent runs: ONNX, manifest and card."""
    from fer_trainer import checkpoint
    from fer_trainer.data.open import open_faces
    from fer_trainer.release import AGREED, MAJORITY, release

    state = checkpoint.load(checkpoint.best_of(run))
    source = source_of(data, kind, votes, label_map, any_counts=any_counts, limit=limit)
    faces = open_faces(source, state.parsed_recipe.data)
    others = {}
    if votes is not None and state.parsed_recipe.data.targets != "label":
        for protocol, kept in ((MAJORITY, "majority"), (AGREED, "agreed")):
            section = state.parsed_recipe.data.model_copy(update={"targets": kept})
            others[protocol] = open_faces(source, section)
    made = release(state, faces, out, version=version, others=others, draft=draft)
    if keep is not None:
        checkpoint.save(checkpoint.compact(state), keep)
    first = made.manifest.metrics[0]
    print(
        f"{out}: epoch {state.best_epoch}, accuracy {first.accuracy:.4f} on {first.split} "
        f"({first.protocol}), PyTorch and ONNX differ by {made.difference:.1e}"
    )


@app.command(rich_help_panel=_SHIPPING)
def quantize(
    *,
    model: Annotated[Path, typer.Argument(help="Model folder, from `fer-train export`.")],
    data: DataOption,
    kind: KindOption = None,
    votes: VotesOption = None,
    label_map: MapOption = None,
    crops: Annotated[int, typer.Option(min=1, help="Training crops that calibrate.")] = 512,
    limit: Annotated[float, typer.Option(help="Largest loss of accuracy, in points.")] = 1.0,
    any_counts: AnyCounts = False,
) -> None:
    """Add INT8 and FP16 graphs to a model folder, if they lose little."""
    from fer_trainer.data.open import open_faces
    from fer_trainer.evaluate import open_subject
    from fer_trainer.quantize import quantize as make

    source = source_of(data, kind, votes, label_map, any_counts=any_counts, limit=0)
    faces = open_faces(source, open_subject(model).data)
    for one in make(model, faces, crops=crops, limit=limit / 100.0):
        print(f"{one.file.path}: {one.file.bytes:,} bytes, accuracy {one.accuracy:.4f} on valid, "
              f"{100 * one.lost:+.2f} points lost, {100 * one.agreement:.1f} % equal answers"
              )  # fmt: skip


@app.command(rich_help_panel=_PAPER)
def baselines(
    *,
    data: Annotated[
        Optional[Path],  # noqa: UP045  # as above
        typer.Option("--data", help="Data set; faces of noise when left out with tests-smoke."),
    ] = None,
    kind: KindOption = None,
    votes: VotesOption = None,
    label_map: MapOption = None,
    results: ResultsOption = Path("runs/results.json"),
    recipe: RecipeOption = "coarse",
    settings: SetOption = None,
    only: OnlyOption = None,
    teachers: RowTeachersOption = None,
    targets: RowTargetsOption = None,
    seeds: SeedsOption = "1",
    epochs: EpochsOption = 0,
    limit: LimitOption = 0,
    any_counts: AnyCounts = False,
    threads: ThreadsOption = 0,
) -> None:
    """Measure Table 1, row by row; what is measured already stays."""
    from fer_trainer.data.open import is_affectnet
    from fer_trainer.tables import AFFECTNET, BASELINES

    chosen = choose_recipe(recipe, settings, epochs=epochs)
    if data is None:
        source = noise_of(chosen)
    else:
        source = source_of(data, kind, votes, label_map, any_counts=any_counts, limit=limit)
    table, rows = ("affectnet", AFFECTNET) if is_affectnet(source) else ("baselines", BASELINES)
    measure_rows(table, rows, chosen, source, results, only=only, teachers=teachers,
          targets=targets, seeds=seeds, threads=threads)  # fmt: skip


@app.command(rich_help_panel=_PAPER)
def ablate(
    *,
    data: DataOption,
    kind: KindOption = None,
    votes: VotesOption = None,
    label_map: MapOption = None,
    results: ResultsOption = Path("runs/results.json"),
    recipe: RecipeOption = "coarse",
    settings: SetOption = None,
    only: OnlyOption = None,
    teachers: RowTeachersOption = None,
    targets: RowTargetsOption = None,
    seeds: SeedsOption = "1",
    epochs: EpochsOption = 0,
    limit: LimitOption = 0,
    any_counts: AnyCounts = False,
    threads: ThreadsOption = 0,
) -> None:
    """Measure Table 2, row by row; what is measured already stays."""
    from fer_trainer.tables import ABLATION

    chosen = choose_recipe(recipe, settings, epochs=epochs)
    source = source_of(data, kind, votes, label_map, any_counts=any_counts, limit=limit)
    measure_rows("ablation", ABLATION, chosen, source, results, only=only, teachers=teachers,
          targets=targets, seeds=seeds, threads=threads)  # fmt: skip


@app.command(rich_help_panel=_PAPER)
def bench(
    *,
    path: Annotated[
        Optional[Path],  # noqa: UP045  # as above
        typer.Argument(help="Run or checkpoint; without one, the recipe's network."),
    ] = None,
    recipe: RecipeOption = "paper",
    settings: SetOption = None,
    runs: Annotated[int, typer.Option(min=1, help="Passes measured.")] = 1_000,
    warmup: Annotated[int, typer.Option(min=0, help="Passes before.")] = 100,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    threads: ThreadsOption = 0,
    results: Annotated[
        Optional[Path],  # noqa: UP045  # as above
        typer.Option(help="Also add the row to this results file, for the report."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a network's latency in PyTorch: the paper's protocol, one crop at a time."""
    from fer_trainer import checkpoint
    from fer_trainer.bench import measure
    from fer_trainer.deploy import network_of
    from fer_trainer.fabric import open_device
    from fer_trainer.networks.build import rebuild_network
    from fer_trainer.results import Results

    place = open_device(device, threads=threads)
    if path is not None:
        network = network_of(checkpoint.load(checkpoint.best_of(path)))
    else:
        network = rebuild_network(choose_recipe(recipe, settings).network, classes=7).eval()
    speed = measure(network, place, runs=runs, warmup=warmup)
    if results is not None:
        Results.open(results).add("speed", place.type, {"seed": 0, **speed.as_json()})
    if as_json:
        print_json(speed.as_json())
        return
    print(f"{speed.device}: {speed.mean_ms:.2f} ms mean, {speed.p50_ms:.2f} median, "
          f"{speed.p95_ms:.2f} p95, {speed.fps:.0f} FPS, peak {speed.peak_mb:.0f} MB; "
          f"{speed.parameters:,} parameters, {speed.macs:,} MACs")  # fmt: skip


@app.command(rich_help_panel=_PAPER)
def report(
    *,
    results: Annotated[
        Optional[Path],  # noqa: UP045  # as above
        typer.Option(
            help="From baselines, ablate, bench; by default runs/results.json, or where that is "
            "not there what was measured for this release."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("runs/report"),
) -> None:
    """Render Tables 1 to 3 and Figures 2 to 5: Markdown, PNG and one HTML page."""
    from fer_trainer.report.pages import write_report
    from fer_trainer.results import Results, default_results

    chosen = results or default_results()
    for path in write_report(Results.open(chosen), out):
        print(path)
    print(f"of the rows in {chosen}", file=sys.stderr)


def main() -> None:
    """Run a command; an `AgentError` becomes two lines and its exit code."""
    # OpenMP's threads wait spinning by default, which ruins a machine with other work to do: two
    # training threads on two shared cores reached 28 img/s spinning and 225 waiting.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except AgentError as error:
        print(f"fer-train: {error}", file=sys.stderr)
        print(f"  {error.remedy}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("fer-train: stopped; the same command goes on from the last epoch", file=sys.stderr)
        sys.exit(130)
