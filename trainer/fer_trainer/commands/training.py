"""The commands `prepare`, `train`, `teacher` and `distill`, from data to a trained network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from fer_trainer.commands.options import (
    AnyCounts,
    CompileOption,
    DataOption,
    EpochsOption,
    JsonOption,
    KindOption,
    LimitOption,
    MapOption,
    OutOption,
    RecipeOption,
    SetOption,
    ThreadsOption,
    VotesOption,
    WeightsOption,
    changes_of,
    choose_recipe,
    labels_from,
    source_of,
)
from fer_trainer.commands.terminal import print_json, train_run

app = typer.Typer()

PANEL = "Data and training"


@app.command(rich_help_panel=PANEL)
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


@app.command(rich_help_panel=PANEL)
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


@app.command(rich_help_panel=PANEL)
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
        Optional[Path],  # noqa: UP045  # Typer on Python 3.10 wants it spelt out
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
    from fer_trainer.network_teacher import open_networks
    from fer_trainer.targets import write_targets as write

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


@app.command(rich_help_panel=PANEL)
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
