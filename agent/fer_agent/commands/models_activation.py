"""`fer-agent models activate|rollback`: changes the running version by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fer_agent.commands.options import ConfigOption, JsonOption
from fer_agent.commands.terminal import print_json

if TYPE_CHECKING:
    from fer_agent.updates.activation.journal import ModelVersion

app = typer.Typer()

NameArgument = Annotated[str, typer.Argument(help="Name of the model.", show_default=False)]


@app.command()
def activate(
    name: NameArgument,
    version: Annotated[
        str | None,
        typer.Argument(
            help="Version in the store, or the shipped one; by default the newest in the store.",
            show_default=False,
        ),
    ] = None,
    *,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try a version that is in the store and switch to it, also one that was refused before."""
    from fer_agent.config import loading
    from fer_agent.updates.activation.change import configured

    change = configured(loading.load_incomplete(config))
    _show(name, change.activate_installed(name, version), as_json=as_json)


@app.command()
def rollback(
    name: NameArgument, *, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Go back to the version before; the one left behind is not taken again by itself."""
    from fer_agent.config import loading
    from fer_agent.updates.activation.pending import roll_back

    active = roll_back(loading.load_incomplete(config).store, name, "rolled back by hand")
    _show(name, active, as_json=as_json)


def _show(name: str, active: ModelVersion | None, *, as_json: bool) -> None:
    """Show the version that is linked now; None is the shipped one."""
    if as_json:
        print_json({"name": name, "active": None if active is None else active.model_dump()})
    else:
        which = "the version shipped with the agent" if active is None else active.version
        typer.echo(f"{name}: {which} is active; a running agent takes it over within seconds")
