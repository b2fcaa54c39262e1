"""Options that all commands share: the boards to work on, and how to connect to them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from fer_agent.errors import UsageError
from fer_provisioning import host_keys
from fer_provisioning.targets import Target, parse_target, read_inventory


@dataclass(frozen=True, slots=True)
class Reach:
    """The boards of a command, and how to connect to them.

    Attributes:
        targets: the boards.
        known_hosts: file of trusted host keys.
        sudo_password_file: holds the sudo password; None asks.
        parallel: boards worked on at a time.
        ask: whether a person can be asked.
        strict: whether unknown host keys are refused without asking.
    """

    targets: list[Target]
    known_hosts: Path
    sudo_password_file: Path | None
    parallel: int
    ask: bool
    strict: bool


def _reach(
    hosts: Annotated[
        list[str] | None,
        typer.Argument(help="[user@]host[:port] ...; this machine when none is named."),
    ] = None,
    *,
    inventory: Annotated[Path | None, typer.Option(help="TOML file that lists the boards.")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Host or group of the inventory to work on; may be repeated."),
    ] = None,
    port: Annotated[int | None, typer.Option("--port", "-p", help="SSH port.")] = None,
    key: Annotated[Path | None, typer.Option("--key", "-i", help="SSH private key.")] = None,
    known_hosts: Annotated[
        Path | None, typer.Option(help="File of trusted host keys instead of your own.")
    ] = None,
    sudo_password_file: Annotated[
        Path | None, typer.Option(help="File with the sudo password, instead of asking for it.")
    ] = None,
    parallel: Annotated[int, typer.Option(min=1, help="Boards worked on at a time.")] = 20,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
) -> Reach:
    """Make a `Reach` of the options that every command has, which are its parameters."""
    if inventory is not None and hosts:
        raise UsageError(
            "hosts are named both on the command line and by --inventory",
            remedy="use --only to choose from the inventory",
        )
    if inventory is not None:
        targets = read_inventory(inventory, only=only or ())
    elif only:
        raise UsageError("--only chooses from an inventory", remedy="give one with --inventory")
    else:
        targets = [parse_target(one, port=port, key=key) for one in hosts or ["@local"]]
    names = [one.name for one in targets]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"{', '.join(twice)} is named twice", remedy="name each host once")
    return Reach(
        targets,
        known_hosts or host_keys.default_known_hosts(),
        sudo_password_file,
        parallel,
        ask=sys.stdin.isatty() and not yes,
        strict=inventory is not None,
    )


def on_boards(app: typer.Typer) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command whose first argument is a `Reach`, with the options that make one."""
    return partial(_register, app)


def _register(app: typer.Typer, command: Callable[..., None]) -> Callable[..., None]:
    own = inspect.signature(command, eval_str=True).parameters
    common = inspect.signature(_reach, eval_str=True).parameters

    @wraps(command)
    def run(**options: Any) -> None:
        reach = _reach(**{name: options.pop(name) for name in common})
        command(reach, **options)

    parameters = [*common.values(), *(one for one in own.values() if one.name != "reach")]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # what Typer reads
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return app.command()(run)
