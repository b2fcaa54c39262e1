"""The commands `evaluate`, `export` and `quantize`, from a trained network to a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from fer_agent.errors import UsageError
from fer_trainer.commands.options import (
    AnyCounts,
    DataOption,
    JsonOption,
    KindOption,
    LimitOption,
    MapOption,
    VotesOption,
    labels_from,
    source_of,
)
from fer_trainer.commands.terminal import print_figures, print_json

app = typer.Typer()

PANEL = "Judging and shipping"


@app.command(rich_help_panel=PANEL)
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
    from fer_trainer import evaluate as evaluation
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
        subject = evaluation.open_subject(path)
        section = labels_from(targets) if targets else subject.data
        found.append(
            evaluation.evaluate(
                subject,
                open_faces(source, section),
                split=Split.parse(split),
                protocol=next(one for one in PROTOCOLS if one == protocol),
                precision=precision,
            )
        )
    if as_json:
        over = evaluation.over_seeds(found) if len(found) > 1 else None
        print_json({"evaluations": [one.as_json() for one in found], "over_runs": over})
        return
    for one in found:
        print_figures(one)
    if len(found) > 1:
        over = evaluation.over_seeds(found)
        print(f"over {over['runs']} runs: accuracy {over['accuracy_mean']:.4f} "
              f"± {over['accuracy_deviation']:.4f}")  # fmt: skip


@app.command(rich_help_panel=PANEL)
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
        Optional[Path],  # noqa: UP045  # Typer on Python 3.10 wants it spelt out
        typer.Option(help="Also write a small checkpoint here, for `train --weights`."),
    ] = None,
    vector_scaling: Annotated[
        bool,
        typer.Option(help="Calibrate each class apart, on the validation split."),
    ] = False,
    adjust: Annotated[
        bool,
        typer.Option(help="Raise rare classes by what the validation split finds right."),
    ] = False,
    draft: Annotated[
        bool, typer.Option(help="Of an unfinished run: leave the test alone.")
    ] = False,
    any_counts: AnyCounts = False,
    limit: LimitOption = 0,
) -> None:
    """Write the model folder that the agent runs: ONNX, manifest and card."""
    from fer_trainer import checkpoint
    from fer_trainer.adjust import adjusted
    from fer_trainer.data.open import open_faces
    from fer_trainer.release import AGREED, MAJORITY, release
    from fer_trainer.scaling import scaled

    state = checkpoint.load(checkpoint.best_of(run))
    source = source_of(data, kind, votes, label_map, any_counts=any_counts, limit=limit)
    faces = open_faces(source, state.parsed_recipe.data)
    if vector_scaling:
        state = scaled(state, faces)
    if adjust:
        state = adjusted(state, faces)
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


@app.command(rich_help_panel=PANEL)
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
