"""Numbered rows of a CSV table, and errors that name the row."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from fer_trainer.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Read a table with a head, UTF-8 with or without a byte-order mark.

    Args:
        path: the file.

    Yields:
        The number of each row below the head, counted from 1, and its cells by column.

    Raises:
        DataError: the file cannot be read, is no text, or a row has more or fewer cells than the
            head.
    """
    number = 0
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for number, row in enumerate(csv.DictReader(file), start=1):
                # DictReader's marks of cells too many and too few
                if None in row or None in row.values():
                    raise DataError(
                        f"{path} row {number} has not as many cells as the head",
                        remedy="repair or remove the row",
                    )
                yield number, row
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror}", remedy="give the table, as a readable file"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is no UTF-8 text: {error.reason}", remedy="give the table itself, unpacked"
        ) from error
    except csv.Error as error:
        raise DataError(
            f"{path} row {number + 1} cannot be read: {error}", remedy="repair or remove the row"
        ) from error
