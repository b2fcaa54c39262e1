"""The results file: one JSON file of everything a grid measured, row by row, written whole."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fer_trainer.errors import DataError
from fer_trainer.files import write_text

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA_VERSION = 1


@dataclass(slots=True)
class Results:
    """What was measured so far; saved after every row.

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
        """Tell whether a row was measured with this seed, recipe and data."""
        return any(
            record["seed"] == seed and record["fingerprint"] == fingerprint
            for record in self.records(table, key)
        )

    def add(self, table: str, key: str, record: dict[str, Any]) -> None:
        """Add a record in place of an older one of its seed, and save.

        Raises:
            StorageError: the disk refuses the file.
        """
        kept = [one for one in self.records(table, key) if one["seed"] != record["seed"]]
        self.rows.setdefault(table, {})[key] = [*kept, record]
        tree = {"schema_version": SCHEMA_VERSION, "rows": self.rows}
        write_text(self.path, json.dumps(tree, indent=2) + "\n")
