"""Tables of a report, as plain text and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fer_agent.bench.record import (
    STAGES,
    BenchReport,
    BoardReading,
    NetworkResult,
    PaperRow,
    PipelineResult,
    Sustained,
)
from fer_agent.system.columns import columns, figure

UNKNOWN: Final = "?"
_NETWORK_HEAD: Final = (
    *("network", "runtime", "threads", "file MB"),
    *("p50", "p95", "p99", "FPS", "private", "resident"),
)
_BARS: Final = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        title: one line above it.
        head: names of the columns.
        rows: cells.
        left: number of columns that are aligned to the left.
        notes: lines below it.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1
    notes: tuple[str, ...] = ()

    def as_text(self) -> str:
        """Return the table for a terminal."""
        align = "<" * self.left + ">" * (len(self.head) - self.left)
        lines = [*columns((self.head, *self.rows), align), *self.notes]
        return "\n".join([self.title, *(f"  {line}" for line in lines)])

    def as_markdown(self) -> str:
        """Return the table in GitHub's Markdown, its title as a heading."""
        rule = ["---" if at < self.left else "---:" for at in range(len(self.head))]
        lines = ["| " + " | ".join(cells) + " |" for cells in (self.head, rule, *self.rows)]
        notes = [f"- {note}" for note in self.notes]
        return "\n".join([f"## {self.title}", "", *lines, *([""] if notes else []), *notes])


def as_text(report: BenchReport) -> str:
    """Return the whole report for a terminal."""
    return "\n\n".join([heading(report), *(table.as_text() for table in tables(report))])


def heading(report: BenchReport) -> str:
    """Return the lines about the machine and the protocol."""
    here, how = report.machine, report.protocol
    memory = UNKNOWN if here.memory_bytes is None else f"{here.memory_bytes / 2**30:.1f} GiB"
    runtimes = ", ".join(f"{name} {version}" for name, version in here.runtimes.items())
    lines = [
        f"{here.board}: {here.processor or UNKNOWN}, {here.cores} core(s), {memory}",
        f"{here.os}, Python {here.python}, runtimes: {runtimes}",
        f"fer-agent {report.agent_version}, {report.started:%Y-%m-%d %H:%M} UTC",
        f"batch {how.batch}, {how.warmup} warm-up and {how.runs} measured passes",
        f"before: {state(report.before)}",
        f"after:  {state(report.after)}",
        f"slowed down meanwhile: {_word(report.throttled_during)}",
        f"load before: {_unit(here.load_before, 'processes', 2)}",
    ]
    if report.interrupted:
        lines.append("interrupted: this is what was measured until then")
    return "\n".join(lines)


def state(reading: BoardReading) -> str:
    """Return one line about temperature, clock and throttling."""
    reasons = f" ({', '.join(reading.throttle_reasons)})" if reading.throttle_reasons else ""
    parts = [
        f"temperature {_unit(reading.temperature_c, '°C', 1)}",
        f"clock {_unit(reading.clock_mhz, 'MHz')} of {_unit(reading.clock_max_mhz, 'MHz')}",
        f"governor {reading.governor or 'unknown'}",
        f"slowed down {_word(reading.throttled)}{reasons}",
    ]
    if reading.gpu_clock_mhz is not None:
        parts.append(f"GPU clock {reading.gpu_clock_mhz:.0f} MHz")
    if reading.power_mode is not None:
        parts.append(f"power mode {reading.power_mode}")
    return ", ".join(parts)


def tables(report: BenchReport) -> list[Table]:
    """Return the report's tables; those without rows are left out."""
    found = []
    if report.networks:
        found.append(_networks(report))
    if report.pipelines:
        found.append(_pipelines(report.pipelines))
    if report.sustained is not None:
        found.append(_sustained(report.sustained))
    return found


def _networks(report: BenchReport) -> Table:
    rows = [_network(one) for one in report.networks]
    rows += [_paper(row) for row in report.paper]
    notes = [
        f"{one.subject.title} on {one.subject.runtime}, {one.subject.threads} thread(s): "
        f"{one.problem.message}; {one.problem.remedy}"
        for one in report.networks
        if one.problem is not None
    ]
    notes += _not_comparable(report.paper)
    return Table(
        title="Networks alone (ms; MB of private dirty and of resident memory)",
        head=_NETWORK_HEAD,
        rows=tuple(rows),
        left=2,
        notes=tuple(notes),
    )


def _network(one: NetworkResult) -> tuple[str, ...]:
    took, kept = one.latency_ms, one.memory
    return (
        one.subject.title,
        one.subject.runtime,
        str(one.subject.threads),
        f"{one.subject.bytes / 1e6:.2f}",
        *([figure(ms, 2) for ms in (took.p50, took.p95, took.p99)] if took else ["-"] * 3),
        figure(one.fps, 0),
        megabytes(kept.private_dirty if kept else None),
        megabytes(kept.resident if kept else None),
    )


def _not_comparable(rows: Sequence[PaperRow]) -> list[str]:
    """Return the reasons why the paper's rows differ; those of all rows once."""
    said = dict.fromkeys(reason for row in rows for reason in row.not_comparable)
    notes = []
    for reason in said:
        boards = [row.board for row in rows if reason in row.not_comparable]
        notes.append(f"¹ {reason}" if len(boards) == len(rows) else f"¹ {boards[0]}: {reason}")
    return notes


def _paper(row: PaperRow) -> tuple[str, ...]:
    ms, fps, memory = (figure(row.latency_ms, 1), figure(row.fps, 0), figure(row.memory_mb, 0))
    return (f"paper, {row.board} ¹", "", "", "", ms, "", "", fps, memory, "")


def _pipelines(results: Sequence[PipelineResult]) -> Table:
    notes = [
        f"{_people(one)}: {one.problem.message}; {one.problem.remedy}"
        for one in results
        if one.problem is not None
    ]
    notes += sorted({f"no YuNet: {one.detector_note}" for one in results if one.detector_note})
    notes.append(
        "frame: from detector to outbox; capture runs beside it on a thread of its own; "
        "a stage without figures had nothing to do"
    )
    return Table(
        title="Pipeline (median ms of each stage; frame p50 and p95; frames a second end to end)",
        head=("clip", "found by", "faces", *STAGES, "frame", "p95", "FPS", "cores", "private"),
        rows=tuple(_pipeline(one) for one in results),
        left=2,
        notes=tuple(notes),
    )


def _pipeline(one: PipelineResult) -> tuple[str, ...]:
    stages = (one.stages_ms.get(stage) for stage in STAGES)
    return (
        _people(one),
        one.detector or "-",
        figure(one.faces_seen, 1),
        *(figure(stage.p50 if stage else None, 3) for stage in stages),
        figure(one.frame_ms.p50 if one.frame_ms else None, 2),
        figure(one.frame_ms.p95 if one.frame_ms else None, 2),
        figure(one.fps, 1),
        figure(one.cpu_share, 2),
        megabytes(one.memory.private_dirty if one.memory else None),
    )


def _people(one: PipelineResult) -> str:
    return one.clip if one.faces is None else f"{one.clip}, {one.faces} face(s)"


def _sustained(run: Sustained) -> Table:
    rates = [sample.fps for sample in run.samples]
    notes = [sparkline(rates)] if rates else []
    if run.problem is not None:
        notes.append(f"{run.problem.message}; {run.problem.remedy}")
    rows: list[tuple[str, ...]] = []
    if run.samples:
        thirds = [run.samples[0], run.samples[len(run.samples) // 2], run.samples[-1]]
        rows = [
            (
                when,
                figure(sample.at_s, 0),
                figure(sample.fps, 1),
                figure(sample.temperature_c, 1),
                figure(sample.clock_mhz, 0),
                _word(sample.throttled),
            )
            for when, sample in zip(("start", "middle", "end"), thirds, strict=True)
        ]
        rows.append(("slowest", "", figure(min(rates), 1), "", "", ""))
    return Table(
        title=f"Sustained: {run.minutes:g} min asked for, {run.faces} face(s)",
        head=("when", "s", "FPS", "°C", "MHz", "slowed down"),
        rows=tuple(rows),
        notes=tuple(notes),
    )


def sparkline(values: Sequence[float]) -> str:
    """Return values as a line of bars from zero to their largest."""
    top = max(values, default=0.0) or 1.0
    return "".join(_BARS[min(len(_BARS) - 1, int(value / top * len(_BARS)))] for value in values)


def megabytes(size_bytes: int | None) -> str:
    """Return bytes as megabytes of a million, for a table."""
    return "-" if size_bytes is None else f"{size_bytes / 1e6:.1f}"


def _unit(value: float | None, unit: str, digits: int = 0) -> str:
    return "unknown" if value is None else f"{value:.{digits}f} {unit}"


def _word(answer: bool | None) -> str:  # noqa: FBT001  a reading, not a switch
    return "unknown" if answer is None else "yes" if answer else "no"
