"""Plots of a report as SVG, drawn here because the agent has no plotting library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

from fer_agent.bench.record import STAGES, BenchReport, Sustained

_WIDTH: Final = 720
_BAR_PX: Final = 18
_GAP_PX: Final = 8
_LABEL_PX: Final = 240
_TOP_PX: Final = 36
_COLOURS: Final = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3")
"""Seven colours that the colour-blind can tell apart; one for each stage."""

_STYLE: Final = (
    "<style>text{font:12px sans-serif;fill:#222}.t{font-weight:bold;font-size:14px}"
    ".g{stroke:#ddd}.n{fill:#555}svg{background:#fff}</style>"
)


@dataclass(frozen=True, slots=True)
class PlotBar:
    """One line of a bar chart: its label, its parts in milliseconds, and a note at its end."""

    label: str
    parts: tuple[tuple[str, float], ...]
    note: str


def pictures(report: BenchReport) -> dict[str, str]:
    """Return SVG documents by name; empty parts of a report have none."""
    found = {}
    latencies = [
        PlotBar(
            f"{one.subject.title}, {one.subject.runtime}, {one.subject.threads} thr.",
            (("p50", one.latency_ms.p50), ("p95", one.latency_ms.p95 - one.latency_ms.p50)),
            f"{one.latency_ms.p50:.2f} / {one.latency_ms.p95:.2f}",
        )
        for one in report.networks
        if one.latency_ms is not None
    ]
    if latencies:
        found["latency"] = bars("Networks alone: p50, and on to p95, in ms", latencies)
    stages = [
        PlotBar(
            one.clip if one.faces is None else f"{one.faces} face(s)",
            tuple(
                (stage, one.stages_ms[stage].p50)
                for stage in STAGES
                # Publishing is rare: its median would look like a part of every frame.
                if stage in one.stages_ms and stage not in ("capture", "publish")
            ),
            f"{one.fps or 0:.0f} FPS",
        )
        for one in report.pipelines
        if one.stages_ms
    ]
    if stages:
        found["stages"] = bars("A frame by stage, median in ms; capture runs beside it", stages)
    if report.sustained is not None and len(report.sustained.samples) > 1:
        found["sustained"] = line(report.sustained)
    return found


def bars(title: str, rows: Sequence[PlotBar]) -> str:
    """Draw stacked bars with a legend of the parts."""
    names = list(dict.fromkeys(name for row in rows for name, _ in row.parts))
    longest = max((sum(ms for _, ms in row.parts) for row in rows), default=0.0)
    ticks = _ticks(longest)
    plot_px = _WIDTH - _LABEL_PX - 90
    height = _TOP_PX + len(rows) * (_BAR_PX + _GAP_PX) + 56
    body = []
    for tick in ticks:
        x = _LABEL_PX + plot_px * tick / ticks[-1]
        body.append(_grid_line(x, _TOP_PX, x, height - 50))
        body.append(_text(x, height - 36, f"{tick:g}", "middle"))
    for at, row in enumerate(rows):
        y = _TOP_PX + at * (_BAR_PX + _GAP_PX)
        body.append(_text(_LABEL_PX - 8, y + 13, row.label, "end"))
        x = float(_LABEL_PX)
        for name, ms in row.parts:
            width = plot_px * ms / ticks[-1]
            colour = _COLOURS[names.index(name) % len(_COLOURS)]
            body.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_BAR_PX}" '
                f'fill="{colour}"><title>{escape(name)} {ms:.3f} ms</title></rect>'
            )
            x += width
        body.append(_text(x + 6, y + 13, row.note, "start"))
    for at, name in enumerate(names):
        x = _LABEL_PX + at * 80
        colour = _COLOURS[at % len(_COLOURS)]
        body.append(f'<rect x="{x}" y="{height - 22}" width="10" height="10" fill="{colour}"/>')
        body.append(_text(x + 14, height - 13, name, "start"))
    return _document(title, height, body)


def line(run: Sustained) -> str:
    """Draw frames a second over time, and the temperature above it where it is known."""
    height, left, bottom = 300, 50, 250
    plot_px, rise_px = _WIDTH - left - 60, bottom - _TOP_PX
    last_s = max(run.samples[-1].at_s, 1e-9)
    ticks = _ticks(max(sample.fps for sample in run.samples))
    body = []
    for tick in ticks:
        y = bottom - rise_px * tick / ticks[-1]
        body.append(_grid_line(left, y, left + plot_px, y))
        body.append(_text(left - 6, y + 4, f"{tick:g}", "end"))

    def path(values: Sequence[tuple[float, float]], largest: float, colour: str) -> str:
        points = " ".join(
            f"{left + plot_px * at_s / last_s:.1f},{bottom - rise_px * value / largest:.1f}"
            for at_s, value in values
        )
        return f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{points}"/>'

    body.append(path([(one.at_s, one.fps) for one in run.samples], ticks[-1], _COLOURS[0]))
    warm = [(one.at_s, one.temperature_c) for one in run.samples if one.temperature_c is not None]
    if warm:
        body.append(path(warm, 100.0, _COLOURS[3]))
        y = bottom - rise_px * warm[-1][1] / 100
        body.append(_text(left + plot_px + 4, y + 4, f"{warm[-1][1]:.0f} °C", "start"))
    body.append(_text(left, bottom + 18, "0 s", "start"))
    body.append(_text(left + plot_px, bottom + 18, f"{last_s:.0f} s", "end"))
    legend = "blue: frames a second" + ("; red: °C, of 100" if warm else "; temperature unknown")
    body.append(_text(left, height - 12, legend, "start"))
    return _document(f"Sustained, {run.faces} face(s): frames a second", height, body)


def _ticks(largest: float) -> list[float]:
    """Return an axis' ticks from zero on, at steps of 1, 2 or 5 times a power of ten."""
    if largest <= 0:
        return [0.25 * number for number in range(5)]
    power = 10 ** math.floor(math.log10(largest / 4))
    step = next(power * digit for digit in (1, 2, 5, 10) if largest / (power * digit) <= 8)
    return [step * number for number in range(math.ceil(largest / step) + 1)]


def _grid_line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="g" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _document(title: str, height: int, body: Sequence[str]) -> str:
    head = f'<text class="t" x="12" y="20">{escape(title)}</text>'
    size = f'width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}"'
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    lines = [opening, f"<title>{escape(title)}</title>", _STYLE, head, *body, "</svg>", ""]
    return "\n".join(lines)
