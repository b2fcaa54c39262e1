"""What commands share: their options, what those ask for, and what is printed.

Part of `cli.py` in all but name; nothing else of the trainer prints.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from fer_agent.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fer_trainer.data.faceset import FaceSet
    from fer_trainer.data.open import Source
    from fer_trainer.evaluate import Evaluation
    from fer_trainer.loop import Listener
    from fer_trainer.recipe import DataSection, Recipe
    from fer_trainer.tables import Row

DataOption = Annotated[Path, typer.Option("--data", help="Data set: file, archive or folder.")]
KindOption = Annotated[
    Optional[str],  # noqa: UP045  # Typer on Python 3.10 wants it spelt out
    typer.Option("--kind", help="fer2013, affectnet-7, affectnet-8, raf-db, ck48 or folders."),
]
VotesOption = Annotated[
    Optional[Path],  # noqa: UP045  # as above
    typer.Option("--votes", help="FER+ votes, for recipes that train on them."),
]
MapOption = Annotated[
    Optional[list[str]],  # noqa: UP045  # as above
    typer.Option("--map", help="Rename, merge or drop a class: contempt=drop. May be repeated."),
]
AnyCounts = Annotated[bool, typer.Option("--any-counts", help="Accept a part of an official set.")]
LimitOption = Annotated[int, typer.Option("--limit", help="Images of each split; 0 is all.")]
RecipeOption = Annotated[str, typer.Option("--recipe", help="Packaged recipe, or a .toml file.")]
SetOption = Annotated[
    Optional[list[str]],  # noqa: UP045  # as above
    typer.Option("--set", help="Change one switch: section.switch=value. May be repeated."),
]
EpochsOption = Annotated[int, typer.Option("--epochs", help="Instead of the recipe's.")]
OutOption = Annotated[Path, typer.Option("--out", help="Run folder; an unfinished run goes on.")]
WeightsOption = Annotated[
    Optional[Path],  # noqa: UP045  # as above
    typer.Option("--weights", help="Run or file to start from, where the recipe wants one."),
]
ThreadsOption = Annotated[int, typer.Option("--threads", help="CPU threads; 0: torch's choice.")]
CompileOption = Annotated[bool, typer.Option("--compile", help="Compile the network first.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
ResultsOption = Annotated[Path, typer.Option("--results", help="Receives the rows.")]
OnlyOption = Annotated[
    Optional[list[str]],  # noqa: UP045  # as above
    typer.Option("--only", help="Key of a row; all are measured when none is named."),
]
RowTeachersOption = Annotated[
    Optional[list[Path]],  # noqa: UP045  # as above
    typer.Option("--teacher", help="Run that teaches the distilled rows."),
]
RowTargetsOption = Annotated[
    Optional[Path],  # noqa: UP045  # as above
    typer.Option("--targets", help="Soft targets for the distilled rows."),
]
SeedsOption = Annotated[str, typer.Option("--seeds", help="Such as 1,2,3.")]


def choose_recipe(
    name: str, settings: list[str] | None, *, epochs: int = 0, compiled: bool = False
) -> Recipe:
    """Load a recipe and change its switches as the command line says.

    Raises:
        RecipeError: there is no such recipe, or a switch is unknown or impossible.
    """
    from fer_trainer.recipe import load_recipe

    return load_recipe(name).with_(changes_of(settings, epochs=epochs, compiled=compiled))


def changes_of(settings: list[str] | None, *, epochs: int, compiled: bool) -> dict[str, Any]:
    """Turn `--set`, `--epochs` and `--compile` into switches by dotted name."""
    from fer_trainer.recipe import parse_setting

    changes = dict(parse_setting(text) for text in settings or ())
    if epochs:
        changes["train.epochs"] = epochs
    if compiled:
        changes["train.compile"] = True
    return changes


def labels_from(targets: str) -> DataSection:
    """Say which labels are wanted, where no recipe does.

    Raises:
        RecipeError: there are no such targets.
    """
    from fer_trainer.recipe import Recipe

    return Recipe(name="--targets").with_({"data.targets": targets}).data


def source_of(
    data: Path,
    kind: str | None,
    votes: Path | None,
    label_map: list[str] | None,
    *,
    any_counts: bool,
    limit: int,
) -> Source:
    """Put what the user says about the data together.

    Raises:
        DataError: `--kind` is unknown.
        UsageError: a `--map` says no new name.
    """
    from fer_trainer.data.kinds import parse_kind
    from fer_trainer.data.open import Source

    pairs = {}
    for text in label_map or ():
        old, equals, new = text.partition("=")
        if not equals or not new:
            raise UsageError(f"--map {text} says no new name", remedy="write --map old=new")
        pairs[old] = new
    named = parse_kind(kind) if kind else None
    return Source(data, named, votes, pairs, check_counts=not any_counts, limit=limit)


def train_run(
    recipe: Recipe,
    source: Source,
    out: Path,
    *,
    weights: Path | None = None,
    threads: int = 0,
    teachers: list[Path] | None = None,
    targets: Path | None = None,
) -> FaceSet:
    """Run one training with a progress bar and logs; returns the data."""
    from fer_trainer import listeners, loop
    from fer_trainer.data.open import open_faces
    from fer_trainer.fabric import launch
    from fer_trainer.files import make_folder
    from fer_trainer.teachers import open_teacher

    faces = open_faces(source, recipe.data)
    fabric = launch(recipe, threads=threads)
    teacher = open_teacher(faces, fabric.device, runs=teachers or [], targets=targets)
    make_folder(out)
    with listeners.Bar(recipe.train.epochs) as bar:
        heard: list[Listener] = [
            bar,
            listeners.JsonLines(out / "log.jsonl"),
            listeners.TensorBoard(out / "tb"),
        ]
        state = loop.train(
            recipe,
            faces,
            out,
            fabric,
            teacher=teacher,
            weights=weights,
            listeners=heard,
        )
    if fabric.is_global_zero:
        print(
            f"best epoch {state.best_epoch} of {state.epoch}: accuracy "
            f"{state.best_accuracy:.4f} on {state.selected_on}, in {out / 'best.ckpt'}"
        )
    return faces


def print_figures(one: Evaluation) -> None:
    """Print an evaluation as a few lines and a table of its classes."""
    whole, apart = one.whole, one.without_trained
    low, high = whole.interval
    print(f"{one.subject} on {one.dataset} {one.split}, {one.protocol}, {whole.n:,} images")
    print(f"  accuracy  {whole.accuracy:.4f}  (95 %: {low:.4f} to {high:.4f})")
    print(f"            {apart.accuracy:.4f}  without images that also stand in training")
    print(f"  macro-F1  {whole.macro_f1:.4f}   ECE {whole.ece:.4f} at T = {one.temperature}")
    print("  class      precision  recall      F1  images  wrongly called angry or sad")
    for label, each in whole.per_class.items():
        print(f"  {label:10} {each.precision:9.3f} {each.recall:7.3f} {each.f1:7.3f} "
              f"{each.support:7,}  {whole.wrongly_hurtful[label]:.1%}")  # fmt: skip


def measure_rows(
    table: str,
    rows: Sequence[Row],
    recipe: Recipe,
    source: Source,
    results: Path,
    *,
    only: list[str] | None,
    teachers: list[Path] | None,
    targets: Path | None,
    seeds: str,
    threads: int,
) -> None:
    """Measure a table's rows with a progress bar, and print the table.

    Raises:
        UsageError: `--seeds` names none.
        RecipeError: `--only` names an unknown row.
    """
    from fer_trainer import grid
    from fer_trainer.data.open import open_faces
    from fer_trainer.fabric import launch
    from fer_trainer.listeners import Bar
    from fer_trainer.report.pages import markdown_table
    from fer_trainer.report.rows import tables
    from fer_trainer.results import Results
    from fer_trainer.teachers import open_teacher

    chosen = grid.choose(rows, only or ())
    words = [word.strip() for word in seeds.split(",")]
    if not all(word.isdecimal() for word in words):
        raise UsageError(f"--seeds {seeds!r} is no list of numbers", remedy="write --seeds 1,2,3")
    numbers = [int(word) for word in words]
    faces = open_faces(source, recipe.data)
    fabric = launch(recipe, threads=threads)
    teaching = open_teacher(faces, fabric.device, runs=teachers or [], targets=targets)
    found = Results.open(results)
    with Bar(recipe.train.epochs) as bar:
        left_out = grid.Grid(
            table, recipe, faces, fabric, results.parent, found, teaching, [bar]
        ).run(chosen, numbers)
    if fabric.is_global_zero:
        print(markdown_table(tables(found)[1 if table == "ablation" else 0]), end="")
        for title in left_out:
            print(f"left out, needs --teacher or --targets: {title}", file=sys.stderr)


def noise_of(recipe: Recipe) -> Source:
    """The smoke recipe runs without data: on noise, written once beside the cache.

    Raises:
        UsageError: it is another recipe.
    """
    if recipe.name != "tests-smoke":
        raise UsageError("no data was given", remedy="name it with --data")
    from fer_trainer.data.noise import NAME, noise_folder
    from fer_trainer.data.open import Source

    return Source(noise_folder(), "folders", name=NAME)


def print_json(tree: dict[str, Any]) -> None:
    """Print one JSON object with the version of its schema."""
    print(json.dumps({"schema_version": 1, **tree}, indent=2))
