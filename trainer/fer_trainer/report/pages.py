"""The report as Markdown with PNG files, and as one self-contained HTML page."""

from __future__ import annotations

import base64
import html
from typing import TYPE_CHECKING

from fer_trainer.files import write_bytes, write_text
from fer_trainer.report.pictures import TITLES, pictures
from fer_trainer.report.rows import ReportTable, other_data, tables

if TYPE_CHECKING:
    from pathlib import Path

    from fer_trainer.results import Results

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto }
th, td { border-bottom: 1px solid #8884; padding: .3rem .6rem; text-align: left }
.notice { border-left: 4px solid #c33; padding: .5rem 1rem; background: #c331 }
img { max-width: 100% } small { color: #777 }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd } }
"""

_TITLE = "Facial emotion recognition on the device: measured beside the paper"

_MISSING = "not measured: run `fer-train baselines` or `fer-train ablate`"


def write_report(results: Results, out: Path) -> list[Path]:
    """Write `report.md`, `figure-<n>.png` and `report.html`.

    Returns:
        The files.

    Raises:
        StorageError: the disk refuses a file.
    """
    made, drawn = tables(results), pictures(results)
    paths = []
    for number, png in drawn.items():
        path = out / f"figure-{number}.png"
        write_bytes(path, png)
        paths.append(path)
    notice = _notice(results)
    write_text(out / "report.md", _markdown(made, drawn, notice))
    write_text(out / "report.html", _html(made, drawn, notice))
    return [out / "report.md", out / "report.html", *paths]


def markdown_table(table: ReportTable) -> str:
    """Write one table as Markdown."""
    lines = [
        f"## {table.title}",
        "",
        "| " + " | ".join(table.head) + " |",
        "|" + " --- |" * len(table.head),
        *("| " + " | ".join(row) + " |" for row in table.cells),
    ]
    return "\n".join([*lines, "", table.note]).rstrip() + "\n"


def _notice(results: Results) -> str:
    """Return the notice of figures of other data; empty when all are of FER2013."""
    others = other_data(results)
    if not others:
        return ""
    return (
        "Not comparable with the paper, whose figures are of the whole FER2013. Rows marked [ ] "
        f"were measured on other data. {'; '.join(others)}."
    )


def _markdown(made: tuple[ReportTable, ...], drawn: dict[int, bytes], notice: str) -> str:
    parts = [f"# {_TITLE}\n", *(markdown_table(table) for table in made)]
    if notice:
        parts.insert(1, f"> **{notice}**\n")
    for number, title in TITLES.items():
        below = f"![{title}](figure-{number}.png)" if number in drawn else _MISSING
        parts.append(f"## {title}\n\n{below}\n")
    return "\n".join(parts)


def _html(made: tuple[ReportTable, ...], drawn: dict[int, bytes], notice: str) -> str:
    parts = [f"<h1>{html.escape(_TITLE)}</h1>"]
    if notice:
        parts.append(f'<p class="notice">{html.escape(notice)}</p>')
    for table in made:
        head = "".join(f"<th>{html.escape(word)}</th>" for word in table.head)
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in table.cells
        )
        parts.append(f"<h2>{html.escape(table.title)}</h2><table><tr>{head}</tr>{rows}</table>")
        parts.append(f"<p><small>{html.escape(table.note)}</small></p>")
    for number, title in TITLES.items():
        parts.append(f"<h2>{html.escape(title)}</h2>")
        if number in drawn:
            data = base64.b64encode(drawn[number]).decode()
            parts.append(f'<img alt="{html.escape(title)}" src="data:image/png;base64,{data}">')
        else:
            parts.append(f"<p>{html.escape(_MISSING)}</p>")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_TITLE}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body>{''.join(parts)}</body></html>\n"
    )
