"""The comparison of two results, and the differences between the two runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fer_agent.bench.record import SCHEMA_VERSION, BenchReport, ComparedFigure, Comparison
from fer_agent.bench.table import Table
from fer_agent.errors import UsageError

_BUSY = 0.5
"""Load of a machine, in processes a core, above which other work shows in the figures."""


def read(path: Path) -> BenchReport:
    """Read a result file, as `fer-agent bench --json` prints it.

    Raises:
        UsageError: it cannot be read, is something else, or was written by a newer agent.
    """
    remedy = "name a file that `fer-agent bench --json` wrote"
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", remedy=remedy) from error
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}", remedy=remedy) from error
    if not isinstance(content, dict) or content.get("kind") != "fer-agent-bench":
        raise UsageError(f"{path} is no result of `fer-agent bench`", remedy=remedy)
    version = content.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UsageError(
            f"{path} has version {version}, this agent reads up to {SCHEMA_VERSION}",
            remedy="upgrade fer-agent",
        )
    try:
        return BenchReport.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise UsageError(f"{path}: {where}: {first['msg']}", remedy=remedy) from error


def compare(first: BenchReport, second: BenchReport, names: tuple[str, str]) -> Comparison:
    """Put two results side by side.

    Args:
        first: the reference.
        second: the other.
        names: their names, such as those of their files.
    """
    ours, theirs = _figures(first), _figures(second)
    both = [what for what in ours if what in theirs]
    return Comparison(
        first=names[0],
        second=names[1],
        differences=tuple(_differences(first, second, names)),
        figures=tuple(
            ComparedFigure(
                what=what,
                first=ours[what],
                second=theirs[what],
                ratio=round(theirs[what] / ours[what], 4),
            )
            for what in both
            if ours[what]
        ),
        only_first=tuple(what for what in ours if what not in theirs),
        only_second=tuple(what for what in theirs if what not in ours),
    )


def as_table(found: Comparison) -> Table:
    """Return a comparison for a terminal."""
    notes = [
        *found.differences,
        *(f"only in {found.first}: {what}" for what in found.only_first),
        *(f"only in {found.second}: {what}" for what in found.only_second),
    ]
    return Table(
        title=f"{found.second} against {found.first} (ratio below 1: faster or smaller)",
        head=("figure", "first", "second", "ratio"),
        rows=tuple(
            (one.what, f"{one.first:.3f}", f"{one.second:.3f}", f"{one.ratio:.2f}")
            for one in found.figures
        ),
        notes=tuple(notes),
    )


def _figures(report: BenchReport) -> dict[str, float]:
    """Return the comparable figures by title; the same figure has the same title in each result."""
    found = {}
    for one in report.networks:
        subject = one.subject
        where = f"{subject.title}, {subject.runtime}, {subject.threads} thread(s)"
        if one.latency_ms is not None:
            found[f"{where}: p50 ms"] = one.latency_ms.p50
            found[f"{where}: p95 ms"] = one.latency_ms.p95
        if one.memory is not None and one.memory.private_dirty is not None:
            found[f"{where}: private MB"] = round(one.memory.private_dirty / 1e6, 2)
    for run in report.pipelines:
        people = run.clip if run.faces is None else f"{run.clip}, {run.faces} face(s)"
        where = f"pipeline, {people}"
        for stage, took in run.stages_ms.items():
            found[f"{where}: {stage} p50 ms"] = took.p50
        if run.frame_ms is not None:
            found[f"{where}: frame p50 ms"] = run.frame_ms.p50
            found[f"{where}: frame p95 ms"] = run.frame_ms.p95
    return found


def _differences(first: BenchReport, second: BenchReport, names: tuple[str, str]) -> list[str]:
    ours, theirs = _conditions(first), _conditions(second)
    found = [
        f"another {what}: {one} and {theirs[what]}"
        for what, one in ours.items()
        if one != theirs[what]
    ]
    files = {one.subject.title: one.subject.sha256 for one in first.networks}
    changed = {
        one.subject.title
        for one in second.networks
        if files.get(one.subject.title, one.subject.sha256) != one.subject.sha256
    }
    found += [f"another file: {title}" for title in sorted(changed)]
    for report, name in zip((first, second), names, strict=True):
        load = report.machine.load_before
        if load is not None and load / report.machine.cores > _BUSY:
            found.append(f"{name}: the machine was busy with other work (load {load:g})")
        if report.throttled_during:
            found.append(f"{name}: the board slowed itself down meanwhile")
        if report.interrupted:
            found.append(f"{name}: interrupted")
    return found


def _conditions(report: BenchReport) -> dict[str, object]:
    return {
        "board": report.machine.board,
        "processor": report.machine.processor,
        "cores": report.machine.cores,
        "governor": report.before.governor,
        "runtimes": report.machine.runtimes,
        "agent": report.agent_version,
        "detector": sorted({run.detector for run in report.pipelines if run.detector}),
    }
