"""`fer-agent models`: the store's content, signed updates, activation, the measured choice."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from fer_agent.commands import models_activation, models_build
from fer_agent.commands.options import ConfigOption, JsonOption
from fer_agent.commands.terminal import print_json, progress_bar
from fer_agent.system.columns import columns

if TYPE_CHECKING:
    from fer_agent.updates.report import ModelReport, SyncReport

logger = logging.getLogger(__name__)

app = typer.Typer(
    help="The model store: what is there, signed updates, activation and rollback.",
    no_args_is_help=True,
)
app.add_typer(models_build.app)
app.add_typer(models_activation.app)

_COLUMNS = ("name", "kind", "current", "in the store", "shipped", "available", "refused")


@app.command(name="list")
def list_models(*, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show the models here: which version runs, which others are there or were refused."""
    from fer_agent.config import loading
    from fer_agent.updates import inventory

    store = loading.load_incomplete(config).store
    rows = [asdict(row) for row in inventory.rows(store)]
    if as_json:
        print_json({"store": str(store), "models": rows})
        return
    cells = [
        [" ".join(each) if isinstance(each, tuple) else each or "" for each in row.values()]
        for row in rows
    ]
    for line in columns([_COLUMNS, *([cell or "-" for cell in row] for row in cells)]):
        typer.echo(line)


@app.command()
def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Names of models; by default all.", show_default=False),
    ] = None,
    *,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every file of the models here against its manifest; 1 when one is damaged."""
    from fer_agent.config import loading
    from fer_agent.updates import inventory

    checked = inventory.verify(loading.load_incomplete(config).store, names or ())
    if as_json:
        content = [
            asdict(each) | {"folder": str(each.folder), "whole": not each.problem}
            for each in checked
        ]
        print_json({"checked": content})
    else:
        for each in checked:
            typer.echo(f"{each.name} {each.version}: {each.problem or 'whole'}")
            if each.problem:
                typer.echo(f"  {each.remedy}")
    raise typer.Exit(int(any(each.problem for each in checked)))


@app.command()
def sync(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names of models; by default those in use and `models.names`.", show_default=False
        ),
    ] = None,
    *,
    config: ConfigOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only look what is there; fetch and change nothing.")
    ] = False,
    activate: Annotated[
        bool,
        typer.Option(
            "--activate/--no-activate",
            help="Whether to try what was fetched and switch to it, or only keep it in the store.",
        ),
    ] = True,
    scheduled: Annotated[
        bool,
        typer.Option(
            "--scheduled",
            help="For the timer: measure again what changed (see `build --if-changed`); sync only "
            "with a repository, and when the last sync is old enough.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch new versions from the signed repository, verify them, and switch to them."""
    from fer_agent.config import loading
    from fer_agent.measure import renewal
    from fer_agent.updates import sync as syncing

    settings = loading.load_incomplete(config)
    store = settings.store
    if scheduled:
        renewal.on_schedule(settings, store)
        if not syncing.is_due(settings, store):
            logger.info("no sync is due")
            return
    work = syncing.configured(settings, store)
    try:
        with progress_bar("Fetching models") as progress:
            done = work.run(
                syncing.SyncRequest(
                    names=tuple(names or ()),
                    optional_names=() if names else syncing.default_models(settings, store),
                    dry_run=dry_run,
                    activate=activate,
                    progress=progress,
                )
            )
    except syncing.SyncError as error:
        _show(error.report, as_json=as_json)
        raise
    _show(done, as_json=as_json)


def _show(done: SyncReport, *, as_json: bool) -> None:
    if as_json:
        print_json(done.model_dump(mode="json"))
        return
    for model in done.models:
        typer.echo(_line(model))
    if not done.models and done.ok:
        typer.echo(f"{done.repository} has none of the models in use here")


def _line(model: ModelReport) -> str:
    said = {
        "current": f"{model.current} is the newest",
        "updated": f"{model.current} is active now",
        "installed": f"{model.available} is in the store; `fer-agent models activate "
        f"{model.name} {model.available}` switches to it",
        "available": f"{model.available} is there, {model.current or 'nothing'} runs here",
    }
    stays = f"{model.current or 'nothing'} stays; {model.reason}"
    return f"{model.name}: {said.get(model.outcome, stays)}"
