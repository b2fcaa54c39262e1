"""Options that several commands share, and the recipe, labels and data made from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from fer_agent.errors import UsageError

if TYPE_CHECKING:
    from fer_trainer.data.open import Source
    from fer_trainer.recipe import DataSection, Recipe

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
    """Make the recipe's data section for a command without a recipe.

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
    """Make the data's source from the options.

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


def noise_of(recipe: Recipe) -> Source:
    """Return the folder of noise that the smoke recipe uses without data, written once.

    Raises:
        UsageError: it is another recipe.
    """
    if recipe.name != "tests-smoke":
        raise UsageError("no data was given", remedy="name it with --data")
    from fer_trainer.data.noise import NAME, noise_folder
    from fer_trainer.data.open import Source

    return Source(noise_folder(), "folders", name=NAME)
