from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TESTS = Path(__file__).parent


def named_tests() -> list[tuple[str, str]]:
    """Return file and part of a name for each test that the table of faults gives as a proof."""
    pages = (ROOT / "docs" / "cameras.md").read_text(encoding="utf-8")
    rows = [line for line in pages.splitlines() if line.startswith("| ") and "`test_" in line]
    assert len(rows) > 15
    found, file = set(), ""
    for proof in re.findall(r"`([^`]+)`", "".join(row.rsplit("|", 2)[1] for row in rows)):
        # One that names no file stands in that of the one before it.
        named = re.fullmatch(r"(?:(test_\w+)(?:: )?)?…?(\w*)…?", proof)
        assert named, proof
        file = named[1] or file
        found.add((file, named[2]))
    return sorted(found)


@pytest.mark.parametrize(("file", "part"), named_tests())
def test_the_table_of_faults_names_tests_that_are_there(file: str, part: str) -> None:
    (path,) = TESTS.rglob(f"{file}.py")
    text = path.read_text(encoding="utf-8")
    assert re.search(rf"^def test_\w*{part}", text, re.MULTILINE)
