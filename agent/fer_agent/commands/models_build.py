"""`fer-agent models build`: measures the fastest file, runtime and threads of this board."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fer_agent.commands.options import ConfigOption, JsonOption, option
from fer_agent.commands.terminal import print_json
from fer_agent.system.columns import columns, figure

if TYPE_CHECKING:
    from fer_agent.inference.setting import Setting
    from fer_agent.measure.record import MeasuredChoice, Measurement

app = typer.Typer()


@app.command()
def build(
    *,
    model: Annotated[
        str | None, option("Name of the model; by default the configured one.")
    ] = None,
    runs: Annotated[int, typer.Option(min=10, help="Timed runs of each setting.")] = 300,
    limit: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Largest loss of accuracy that speed may cost.")
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
    from fer_agent.measure.search import SettingSearch
    from fer_agent.models.store import find_model

    settings = loading.load_incomplete(config)
    stored = find_model(model or settings.classifier.model, settings.store)
    work = replace(
        renewal.IN_BACKGROUND if if_changed else SettingSearch(limit=limit),
        runs=runs,
        on_start=_show_start,
        on_end=_show_end,
    )
    choice: MeasuredChoice | None
    if if_changed:
        choice = renewal.renew(settings.classifier, stored, settings.store, work)
    else:
        choice = work.run(stored, settings.store, available())
    if as_json:
        nothing = {"model": stored.manifest.name, "setting": None}
        print_json(nothing if choice is None else choice.model_dump(mode="json"))
    elif choice is None:
        typer.echo(f"{stored.manifest.name}: nothing to measure again")
    else:
        typer.echo(_table(choice))


def _show_start(setting: Setting, number: int, count: int) -> None:
    wait = " (its engine is built first, which takes minutes)"
    words = f"{setting}{wait if setting.runtime == 'tensorrt' else ''}"
    typer.echo(f"[{number}/{count}] {words} ... ", err=True, nl=False)


def _show_end(measurement: Measurement) -> None:
    problem, latency_ms = measurement.problem, measurement.latency_ms
    typer.echo(problem or f"{latency_ms:.2f} ms a face", err=True)


def _table(choice: MeasuredChoice) -> str:
    """Return a line for each setting, fastest first, and the chosen one."""
    rows = [("setting", "ms a face", "off by", "labels", "")]
    for one in sorted(choice.measured, key=lambda one: one.latency_ms or float("inf")):
        latency, apart = figure(one.latency_ms, 2), figure(one.largest_difference, 4)
        labels = figure(one.label_disagreements, 0)
        rows.append((str(one.setting), latency, apart, labels, one.problem))
    board = choice.fingerprint.board
    chosen = f"chosen for {choice.model} {choice.version} on {board}: {choice.setting}"
    return "\n".join([*columns(rows, "<>>>"), chosen])
