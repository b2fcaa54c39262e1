"""Text in columns, for terminals."""

from __future__ import annotations

from collections.abc import Sequence


def columns(rows: Sequence[Sequence[str]], align: str = "") -> list[str]:
    """Return a line for each row, its cells padded to the widest of their column.

    Args:
        rows: cells, the head among them; all rows have the same number.
        align: `<` or `>` for each column; columns beyond its end are aligned to the left.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = align.ljust(len(widths), "<")
    return [
        "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def figure(value: float | None, digits: int) -> str:
    """Return a number with so many digits after the point; a dash for None."""
    return "-" if value is None else f"{value:.{digits}f}"
