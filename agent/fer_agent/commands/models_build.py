"""`fer-agent models build`: the fastest file and thread count of this board, by measurement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fer_agent.commands.options import ConfigOption, JsonOption
from fer_agent.commands.terminal import print_json

if TYPE_CHECKING:
    from fer_agent.inference.setting import Setting
    from fer_agent.measure.record import Choice, Measurement

app = typer.Typer()


@app.command()
def build(
    *,
    model: Annotated[
        str | None,
        typer.Option(help="Name of the model; by default the configured one.", show_default=False),
    ] = None,
    runs: Annotated[int, typer.Option(min=10, help="Timed runs of each setting.")] = 300,
    limit: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Largest loss of accuracy that speed may cost."),
    ] = 0.01,
    if_changed: Annotated[
        bool,
        typer.Option(
            "--if-changed",
            help="Only where it was measured here before, and board, runtime, model or agent "
            "changed since; at low priority, with the limit of the last time.",
        ),
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure which precision, runtime and thread count is fastest here; `run` then uses it."""
    from dataclasses import replace

    from fer_agent.config import loading
    from fer_agent.inference.available import available
    from fer_agent.measure import renewal
    from fer_agent.measure.build import Build
    from fer_agent.models.store import find_model

    settings = loading.load_incomplete(config)
    store = settings.store
    stored = find_model(model or settings.classifier.model, store)
    work = replace(
        renewal.BUILD if if_changed else Build(limit=limit),
        runs=runs,
        on_start=_show_start,
        on_end=_show_end,
    )
    choice: Choice | None
    if if_changed:
        choice = renewal.renew(settings.classifier, stored, store, work)
    else:
        choice = work.run(stored, store, available())
    if as_json:
        nothing = {"model": stored.manifest.name, "setting": None}
        print_json(nothing if choice is None else choice.model_dump(mode="json"))
    elif choice is None:
        typer.echo(f"{stored.manifest.name}: nothing to measure again")
    else:
        typer.echo(_table(choice))


def _show_start(setting: Setting, number: int, count: int) -> None:
    patience = " (its engine is built first, which takes minutes)"
    words = f"{setting}{patience if setting.runtime == 'tensorrt' else ''}"
    typer.echo(f"[{number}/{count}] {words} ... ", err=True, nl=False)


def _show_end(measurement: Measurement) -> None:
    problem, latency_ms = measurement.problem, measurement.latency_ms
    typer.echo(problem or f"{latency_ms:.2f} ms a face", err=True)


def _table(choice: Choice) -> str:
    """Return a line for each setting, fastest first, and what was chosen."""
    lines = [f"{'setting':<32} {'ms a face':>9} {'off by':>8} {'labels':>6}"]
    failed = float("inf")
    for one in sorted(choice.measured, key=lambda one: one.latency_ms or failed):
        latency = "-" if one.latency_ms is None else f"{one.latency_ms:.2f}"
        apart = "-" if one.largest_difference is None else f"{one.largest_difference:.4f}"
        labels = "-" if one.label_disagreements is None else str(one.label_disagreements)
        lines.append(f"{one.setting!s:<32} {latency:>9} {apart:>8} {labels:>6}  {one.problem}")
    board = choice.fingerprint.board
    lines.append(f"chosen for {choice.model} {choice.version} on {board}: {choice.setting}")
    return "\n".join(line.rstrip() for line in lines)
