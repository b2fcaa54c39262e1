"""A report as a Markdown page with plots."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fer_agent.bench import plots, table
from fer_agent.bench.record import BenchReport
from fer_agent.errors import UsageError

_CAPTIONS: Final = {
    "latency": "Latency of each network alone",
    "stages": "A frame by stage",
    "sustained": "Frames a second over time",
}


def write(report: BenchReport, page: Path) -> list[Path]:
    """Write the page, and `<page>-<what>.svg` for each plot; existing files are replaced.

    Returns:
        The files written, the page first.

    Raises:
        UsageError: a file cannot be written.
    """
    drawn = plots.pictures(report)
    files = {page.with_name(f"{page.stem}-{what}.svg"): svg for what, svg in drawn.items()}
    shown = [f"![{_CAPTIONS[what]}]({page.stem}-{what}.svg)" for what in drawn]
    places = [line.strip() for line in table.heading(report).splitlines()]
    parts = [
        f"# fer-agent bench: {report.machine.board}",
        "\n".join(f"- {line}" for line in places),
        *(each.as_markdown() for each in table.tables(report)),
        *shown,
    ]
    try:
        page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
        for path, svg in files.items():
            path.write_text(svg, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"cannot write {error.filename or page}: {error.strerror}",
            remedy="name a file in a folder that is there and can be written",
        ) from error
    return [page, *files]
