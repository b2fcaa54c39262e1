"""Measurement of Tables 1 and 2, row after row; a stopped one goes on where it was."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fer_trainer import classical, loop
from fer_trainer.checkpoint import commit
from fer_trainer.data.duplicates import also_in_training
from fer_trainer.data.faceset import Split
from fer_trainer.deploy import count_macs
from fer_trainer.errors import RecipeError
from fer_trainer.evaluate import evaluate, open_subject
from fer_trainer.fabric import device_name
from fer_trainer.files import make_folder
from fer_trainer.listeners import JsonLines
from fer_trainer.metrics import figures
from fer_trainer.networks.build import rebuild_network

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from lightning_fabric import Fabric

    from fer_trainer.data.faceset import FaceSet
    from fer_trainer.loop import Listener
    from fer_trainer.recipe import Recipe
    from fer_trainer.results import Results
    from fer_trainer.tables import TableRow
    from fer_trainer.teachers import Teacher


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Settings that all rows of a table share, and their measurement.

    Attributes:
        table: `baselines` or `ablation`, in the results file.
        recipe: the rows change it.
        faces: the data.
        fabric: launched.
        runs: folder of the run folders.
        results: receives the rows.
        teacher: for the distilled rows; None leaves them out.
        listeners: receive every training's progress.
        announce: receives a line about each row, before it is measured.
    """

    table: str
    recipe: Recipe
    faces: FaceSet
    fabric: Fabric
    runs: Path
    results: Results
    teacher: Teacher | None = None
    listeners: Sequence[Listener] = ()
    announce: Callable[[str], None] = lambda _: None

    def run(self, rows: Sequence[TableRow], seeds: Sequence[int]) -> list[str]:
        """Measure what is missing.

        Returns:
            Titles of the rows left out because they need a teacher.
        """
        left_out = []
        for row in rows:
            if row.distilled and self.teacher is None:
                left_out.append(row.title)
                continue
            for seed in seeds:
                self._measure(row, seed)
        return left_out

    def _measure(self, row: TableRow, seed: int) -> None:
        recipe = self.recipe.with_({**row.changes, "train.seed": seed})
        fingerprint = _fingerprint(recipe, self.faces, row)
        key = row.key if row.classical else row.key_at(recipe.network.input_px)
        here = self.results.has(self.table, key, seed, fingerprint)
        known = self.results.find(seed, fingerprint)
        if self.fabric.is_global_zero:
            self.announce(f"{row.title}, seed {seed}{': measured already' if known else ''}")
        if known:
            if not here and self.fabric.is_global_zero:  # the same training, for another table
                self.results.add(self.table, key, {**known, "title": row.title})
            return
        if row.classical:
            record = self._classical(row, seed)
        else:
            record = self._network(row, recipe, fingerprint)
        common = {
            "title": row.title,
            "seed": seed,
            "fingerprint": fingerprint,
            "dataset": self.faces.name,
            "data_sha256": self.faces.sha256,
            "images": {split.name.lower(): len(self.faces.where(split)) for split in Split},
            "commit": commit(),
        }
        if self.fabric.is_global_zero:
            self.results.add(self.table, key, {**common, **record})

    def _classical(self, row: TableRow, seed: int) -> dict[str, Any]:
        features: classical.Features = "lbp" if row.classical == "lbp" else "hog"
        fitted = classical.fit(self.faces, features, seed=seed)
        truth = self.faces.only(Split.TEST).hard_labels
        apart = ~also_in_training(self.faces)[self.faces.where(Split.TEST)]
        labels = self.faces.labels
        test = figures(fitted.test_answers, truth, labels).as_json()
        without = figures(fitted.test_answers[apart], truth[apart], labels)
        for tree in (test,):
            tree.pop("ece")  # a machine's one-hot answers have no calibration
        return {
            "parameters": fitted.weights,
            "macs": None,
            "epochs": None,
            "valid_accuracy": fitted.valid_accuracy,
            "test": test,
            "without_trained_accuracy": without.accuracy,
            "device": device_name(self.fabric.device),
            "minutes": fitted.minutes,
        }

    def _network(self, row: TableRow, recipe: Recipe, fingerprint: str) -> dict[str, Any]:
        run = self.runs / f"{self.table}-{row.key}-{recipe.train.seed}-{fingerprint[:8]}"
        make_folder(run)
        state = loop.train(
            recipe,
            self.faces,
            run,
            self.fabric,
            teacher=self.teacher if row.distilled else None,
            listeners=(*self.listeners, JsonLines(run / "log.jsonl")),
        )
        evaluation = evaluate(open_subject(run), self.faces)
        network = rebuild_network(recipe.network, len(self.faces.labels)).eval()
        epochs = _epochs(run / "log.jsonl")
        trained = len(self.faces.where(Split.TRAIN))
        return {
            "parameters": sum(p.numel() for p in network.parameters()),
            "macs": count_macs(network),
            "epochs": state.epoch,
            "best_epoch": state.best_epoch,
            "valid_accuracy": state.best_accuracy,
            "valid_curve": [one["valid_accuracy"] for one in epochs],
            "test": evaluation.whole.as_json(),
            "without_trained_accuracy": evaluation.without_trained.accuracy,
            "device": state.device,
            "minutes": sum(trained / one["images_per_s"] for one in epochs) / 60.0,
        }


def choose(rows: Sequence[TableRow], only: Sequence[str]) -> list[TableRow]:
    """Pick rows by key; no key picks all.

    Raises:
        RecipeError: a key is unknown.
    """
    keys = [row.key for row in rows]
    for key in only:
        if key not in keys:
            raise RecipeError(f"there is no row {key!r}", remedy=f"use one of {', '.join(keys)}")
    return [row for row in rows if not only or row.key in only]


def _epochs(log: Path) -> list[dict[str, Any]]:
    """Return a run's epochs, each once; one that was cut short is in the log twice."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return list({line["epoch"]: line for line in lines}.values())


def _fingerprint(recipe: Recipe, faces: FaceSet, row: TableRow) -> str:
    """Hash the recipe, the data and the teacher that a row's figures depend on."""
    settings = row.classical or recipe.model_dump_json(
        exclude={"name": True, "teacher": True, "train": {"compile"}}, exclude_defaults=True
    )
    text = f"{settings}\n{faces.training_sha256()}\n{len(faces)}\n{row.distilled}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
