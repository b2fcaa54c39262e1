"""Tables 1 to 3 as plain cells, from a results file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_trainer.data.faceset import Split
from fer_trainer.data.fer2013 import OFFICIAL_COUNTS
from fer_trainer.data.kinds import NAMES
from fer_trainer.tables import (
    ABLATION,
    AFFECTNET,
    AFFECTNET_NOTE,
    BASELINES,
    BOARD_ROWS,
    GPU_ROW,
    NOT_MEASURED,
    TableRow,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fer_trainer.results import Results


@dataclass(frozen=True, slots=True)
class ReportTable:
    """A table to print.

    Attributes:
        title: above it.
        head: column names.
        cells: rows of as many words.
        note: below it.
    """

    title: str
    head: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    note: str = ""


_HEAD = (
    "Network", "Paper", "PrivateTest", "without copies", "PublicTest", "Macro-F1", "Parameters",
    "MACs", "Epochs", "Seeds",
)  # fmt: skip


def tables(results: Results) -> tuple[ReportTable, ReportTable, ReportTable]:
    """Make Tables 1 to 3."""
    first = ReportTable(
        "Table 1. FER2013: networks and classical methods",
        _HEAD,
        (
            *_accuracy_rows(results, "baselines", BASELINES),
            *_accuracy_rows(results, "affectnet", AFFECTNET, missing=AFFECTNET_NOTE),
        ),
        "Accuracy in percent, single crop, with its 95 % bootstrap interval. The epoch was chosen "
        "on PublicTest; PrivateTest was reported once. `without copies` leaves out its images that "
        "also stand in training. AffectNet's figure is of its own validation images. "
        "The paper gives 3,500 validation images for 8 classes of "
        "AffectNet; the set has 4,000 for 8 and 3,500 for 7.",
    )
    second = ReportTable(
        "Table 2. What each part adds", _HEAD, tuple(_accuracy_rows(results, "ablation", ABLATION))
    )
    return first, second, _speed_table(results)


def other_data(results: Results) -> tuple[str, ...]:
    """Return the data other than the whole of FER2013 that was measured on, each once."""
    grids = (results.rows.get("baselines", {}), results.rows.get("ablation", {}))
    records = [one for rows in grids for found in rows.values() for one in _of_one_data(found)]
    others = {
        f"{data}: {_trained(one):,} training and {one['test']['n']:,} test images"
        for one in records
        if (data := data_of(one))
    }
    return tuple(sorted(others))


def data_of(record: dict[str, Any]) -> str:
    """Name the data that a record was measured on; empty for the whole of FER2013."""
    name = str(record["dataset"])
    if name != NAMES["fer2013"]:
        return name
    whole = OFFICIAL_COUNTS[Split.TRAIN], OFFICIAL_COUNTS[Split.TEST]
    return "" if (_trained(record), record["test"]["n"]) == whole else f"part of {name}"


def _trained(record: dict[str, Any]) -> int:
    """Count the training images; older files do not say, and are taken as whole."""
    return int(record.get("images", {}).get("train", OFFICIAL_COUNTS[Split.TRAIN]))


def measured(
    results: Results, table: str, rows: Sequence[TableRow]
) -> list[tuple[TableRow, dict[str, Any]]]:
    """Give the rows that were measured, each with its first record."""
    found = [pair for row in rows for pair in _variants(results, table, row)]
    return [(row, records[0]) for row, records in found if records]


def _variants(
    results: Results, table: str, row: TableRow
) -> list[tuple[TableRow, list[dict[str, Any]]]]:
    """Give a row's records at 48x48, then those of crops that were enlarged."""
    found = [(row, _of_one_data(results.records(table, row.key)))]
    for key in results.rows.get(table, {}):
        name, at, size = key.partition("@")
        if at and name == row.key:
            larger = replace(row, title=f"{row.title} at {size}x{size}")
            found.append((larger, _of_one_data(results.records(table, key))))
    return found


def _of_one_data(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep the records of the whole FER2013; without any, those of the data measured last."""
    if not records:
        return []
    kept = "" if any(not data_of(one) for one in records) else data_of(records[-1])
    return [one for one in records if data_of(one) == kept]


def _accuracy_rows(
    results: Results, table: str, rows: Sequence[TableRow], *, missing: str = NOT_MEASURED
) -> list[tuple[str, ...]]:
    pairs = [pair for row in rows for pair in _variants(results, table, row)]
    return [_accuracy_row(row, records, missing) for row, records in pairs]


def _accuracy_row(row: TableRow, records: list[dict[str, Any]], missing: str) -> tuple[str, ...]:
    paper = "" if row.paper is None else f"{row.paper} %"
    if not records:
        return (row.title, paper, missing) + ("",) * (len(_HEAD) - 3)
    first = records[0]
    low, high = first["test"]["accuracy_interval"]
    accuracy = [100 * one["test"]["accuracy"] for one in records]
    if len(records) > 1:
        own = f"{np.mean(accuracy):.2f} ± {np.std(accuracy, ddof=1):.2f}"
    else:
        own = f"{accuracy[0]:.2f} ({100 * low:.1f} to {100 * high:.1f})"
    where = data_of(first)
    return (
        f"{row.title} [{where}]" if where else row.title,
        paper,
        own,
        f"{100 * first['without_trained_accuracy']:.2f}",
        f"{100 * first['valid_accuracy']:.2f}",
        f"{first['test']['macro_f1']:.3f}",
        f"{first['parameters']:,}",
        "" if first["macs"] is None else f"{first['macs'] / 1e6:.1f} M",
        "" if first["epochs"] is None else str(first["epochs"]),
        ", ".join(str(one["seed"]) for one in records),
    )


def _speed_table(results: Results) -> ReportTable:
    head = ("Device", "Latency, ms", "FPS", "Peak memory, MB", "Source")
    lines = [("GPU", *_speed(GPU_ROW), "paper")]
    ours = results.rows.get("speed", {})
    for records in ours.values():
        lines += [(str(one["device"]), *_speed(one), "measured here") for one in records]
    if not any("cuda" in key for key in ours):
        lines.append(("GPU", NOT_MEASURED, "", "", "`fer-train bench` on a GPU"))
    for board, numbers in BOARD_ROWS.items():
        lines.append((board, *_speed(numbers), "paper"))
        lines.append((board, NOT_MEASURED, "", "", "`fer-agent bench` on the board"))
    note = "One crop at a time, 100 passes to warm up, 1,000 measured."
    return ReportTable("Table 3. Speed", head, tuple(lines), note)


def _speed(numbers: dict[str, Any]) -> tuple[str, str, str]:
    return f"{numbers['mean_ms']:.2f}", f"{numbers['fps']:.0f}", f"{numbers['peak_mb']:.0f}"
