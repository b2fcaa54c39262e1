"""Every row of the paper's tables, trained for a step; the command that measures them."""

from __future__ import annotations

import shutil
from math import isfinite
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from fer_trainer import checkpoint, cli
from fer_trainer.grid import Grid
from fer_trainer.recipe import load_recipe
from fer_trainer.report.rows import tables
from fer_trainer.results import Results
from fer_trainer.tables import ABLATION, BASELINES, TableRow
from fer_trainer.teachers import open_teacher

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Run
    from lightning_fabric import Fabric

    from fer_trainer.data.faceset import FaceSet

SAMPLED = ("baselines-hog-svm", "baselines-student-distilled")
"""Rows that need no `make test-all`: one without a network, and one with a teacher."""

ROWS = [
    pytest.param(
        table,
        row,
        id=f"{table}-{row.key}",
        marks=[] if f"{table}-{row.key}" in SAMPLED else pytest.mark.exhaustive,
    )
    for table, rows in (("baselines", BASELINES), ("ablation", ABLATION))
    for row in rows
]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that does not stay, nor waits for the disk: all rows' checkpoints are 1.5 GB."""
    monkeypatch.setattr("os.fsync", lambda _descriptor: None)
    folder = tmp_path / "runs"
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def few(faces: FaceSet) -> FaceSet:
    """Three images of each class: one step of 16 images, and some left over."""
    return faces.limited(21)


@pytest.mark.slow
@pytest.mark.parametrize(("table", "row"), ROWS)
def test_every_row_is_trained_evaluated_and_shown(
    table: str, row: TableRow, few: FaceSet, run: Run, fabric: Fabric, runs: Path
) -> None:
    recipe = load_recipe("tests-smoke")
    teacher = open_teacher(few, fabric.device, runs=[run.folder], targets=None)
    results, heard = Results.open(runs / "results.json"), list[str]()
    grid = Grid(table, recipe, few, fabric, runs, results, teacher, announce=heard.append)
    assert grid.run([row], [1]) == []
    assert heard == [f"{row.title}, seed 1"]
    (record,) = Results.open(runs / "results.json").records(table, row.key)
    assert record["test"]["n"] == 21
    assert sum(map(sum, record["test"]["confusion"])) == pytest.approx(21)
    assert record["parameters"] > 1_000
    if row.classical:
        assert not list(runs.glob("*/last.ckpt"))
    else:
        (path,) = runs.glob("*/last.ckpt")
        state = checkpoint.load(path)
        assert (state.epoch, state.step) == (1, 1)
        assert state.parsed_recipe == recipe.with_(row.changes)
        assert all(bool(weights.isfinite().all()) for weights in state.network.values())
        assert record["macs"] > 1_000_000
        assert isfinite(record["minutes"])
    shown = tables(results)[1 if table == "ablation" else 0]
    assert any(row.title in line[0] and "not measured" not in line for line in shown.cells)


def test_one_training_serves_rows_of_two_tables(
    few: FaceSet, fabric: Fabric, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Table 1's student with SE and Table 2's second row differ in nothing but their titles."""
    results, heard = Results.open(runs / "results.json"), list[str]()
    first, second = (
        next(row for row in rows if row.key == key)
        for rows, key in ((BASELINES, "student"), (ABLATION, "se"))
    )
    recipe = load_recipe("tests-smoke")
    Grid("baselines", recipe, few, fabric, runs, results).run([first], [1])
    monkeypatch.setattr("fer_trainer.loop.train", None)
    compiled = recipe.with_({"train.compile": True})
    grid = Grid("ablation", compiled, few, fabric, runs, results, announce=heard.append)
    grid.run([second], [1])
    assert heard == ["+ SE block, seed 1: measured already"]
    (theirs,), (ours,) = results.records("baselines", "student"), results.records("ablation", "se")
    assert ours == {**theirs, "title": "+ SE block"}


def test_the_smoke_grid_needs_no_data_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["baselines", "--recipe", "tests-smoke", "--threads", "1", "--only", "student"]
    first = CliRunner().invoke(cli.app, [*words, "--only", "hog-svm"])
    assert first.exit_code == 0, first.output
    assert "HOG + SVM, seed 1\n" in first.stderr
    assert "| MobileNetV3-Small + SE [noise] |" in first.stdout
    assert "| VGG13 | 72.4 % | not measured |" in first.stdout
    again = CliRunner().invoke(cli.app, [*words, "--only", "student-distilled"])
    assert again.exit_code == 0, again.output
    assert "MobileNetV3-Small + SE, seed 1: measured already\n" in again.stderr
    assert "left out, needs --teacher or --targets: The paper's network" in again.stderr
    assert again.stdout == first.stdout
