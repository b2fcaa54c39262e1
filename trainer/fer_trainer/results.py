"""The results file, one JSON file with every row that a grid measured.

Beside the rows it holds the accuracies that the paper prints, in percent, under the same keys.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fer_trainer.errors import DataError
from fer_trainer.files import write_text
from fer_trainer.tables import ABLATION, AFFECTNET, BASELINES

SCHEMA_VERSION = 1


@dataclass(slots=True)
class Results:
    """The rows measured so far; saved after every row.

    Attributes:
        path: the file.
        rows: by table and row key, then one record a seed.
    """

    path: Path
    rows: dict[str, dict[str, list[dict[str, Any]]]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> Results:
        """Read a results file; a new one is empty.

        Raises:
            DataError: the file is no results file.
        """
        if not path.exists():
            return cls(path)
        try:
            tree = json.loads(path.read_text())
            if tree["schema_version"] != SCHEMA_VERSION:
                raise KeyError("schema_version")  # noqa: TRY301  # joins the other ways of being none
            return cls(path, tree["rows"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} is no results file: {error}", remedy="give another --results"
            ) from error

    def records(self, table: str, key: str) -> list[dict[str, Any]]:
        """Give a row's records, one a seed; empty when it was not measured."""
        return self.rows.get(table, {}).get(key, [])

    def has(self, table: str, key: str, seed: int, fingerprint: str) -> bool:
        """Return whether a row was measured with this seed, recipe and data."""
        return any(
            record["seed"] == seed and record["fingerprint"] == fingerprint
            for record in self.records(table, key)
        )

    def find(self, seed: int, fingerprint: str) -> dict[str, Any] | None:
        """Find a record of the same training, whatever table and row it was measured for."""
        return next(
            (
                record
                for rows in self.rows.values()
                for records in rows.values()
                for record in records
                if record["seed"] == seed and record["fingerprint"] == fingerprint
            ),
            None,
        )

    def add(self, table: str, key: str, record: dict[str, Any]) -> None:
        """Add a record in place of an older one of its seed and data, and save.

        Raises:
            StorageError: the disk refuses the file.
        """
        kept = [one for one in self.records(table, key) if _place(one) != _place(record)]
        self.rows.setdefault(table, {})[key] = [*kept, record]
        tree = {"schema_version": SCHEMA_VERSION, "paper": _paper(), "rows": self.rows}
        write_text(self.path, json.dumps(tree, indent=2) + "\n")


def default_results() -> Path:
    """Give `runs/results.json`, or where there is none the file that a checkout ships."""
    own = Path("runs/results.json")
    shipped = Path(__file__).parents[1] / "results" / "fer2013.json"
    return own if own.exists() or not shipped.exists() else shipped


def _place(record: dict[str, Any]) -> tuple[Any, ...]:
    """Return a record's seed and data; a trial on a part of the data never replaces the whole."""
    return record["seed"], record.get("dataset"), record.get("images")


def _paper() -> dict[str, dict[str, float]]:
    tables = {"baselines": BASELINES, "ablation": ABLATION, "affectnet": AFFECTNET}
    return {
        name: {row.key: row.paper for row in rows if row.paper is not None}
        for name, rows in tables.items()
    }
