"""Trainings, tables, figures and JSON as the commands print them."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from fer_agent.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fer_trainer.data.faceset import FaceSet
    from fer_trainer.data.open import Source
    from fer_trainer.evaluate import Evaluation
    from fer_trainer.loop import Listener
    from fer_trainer.recipe import Recipe
    from fer_trainer.tables import TableRow


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
    with listeners.ProgressBar(recipe.train.epochs) as bar:
        chosen: list[Listener] = [
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
            listeners=chosen,
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
    rows: Sequence[TableRow],
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
    from fer_trainer.listeners import ProgressBar
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
    with ProgressBar(recipe.train.epochs) as bar:
        left_out = grid.Grid(
            table, recipe, faces, fabric, results.parent, found, teaching, [bar], bar.say
        ).run(chosen, numbers)
    if fabric.is_global_zero:
        print(markdown_table(tables(found)[1 if table == "ablation" else 0]), end="")
        for title in left_out:
            print(f"left out, needs --teacher or --targets: {title}", file=sys.stderr)


def print_json(tree: dict[str, Any]) -> None:
    """Print one JSON object with the version of its schema."""
    print(json.dumps({"schema_version": 1, **tree}, indent=2))
