"""Commands about the installed service: on this machine, over SSH, on a fleet.

`status`, `logs` and `doctor` without a board are answered here, the rest by provisioning.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated, Any, NoReturn

import typer

from fer_agent.commands.options import ConfigOption, JsonOption
from fer_agent.commands.terminal import print_json

app = typer.Typer()

_RELAYED: dict[str, Any] = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Provisioning reads its own options."""

BoardsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        help="[user@]host[:port] ..., with options as `install` has them (--inventory, --key); "
        "this machine when none is named.",
        show_default=False,
    ),
]


@app.command(context_settings={**_RELAYED, "help_option_names": []})
def install(context: typer.Context) -> None:
    """Install the agent as a service: on this machine, over SSH, on a whole fleet."""
    _relay(context)


@app.command(context_settings={**_RELAYED, "help_option_names": []})
def upgrade(context: typer.Context) -> None:
    """Install a new version of the service; an unhealthy one is taken back."""
    _relay(context)


@app.command(context_settings={**_RELAYED, "help_option_names": []})
def uninstall(context: typer.Context) -> None:
    """Remove the service, and with --purge its data too."""
    _relay(context)


@app.command(context_settings=_RELAYED)
def status(
    context: typer.Context, boards: BoardsArgument = None, *, as_json: JsonOption = False
) -> None:
    """Show how the installed service is; 1 when it does not run."""
    from fer_agent.system import installed_service

    if boards or context.args:
        _relay(context)
    found = installed_service.service_status()
    if as_json:
        print_json(found)
    else:
        for name, value in found.items():
            typer.echo(f"{name.replace('_', ' '):<12} {'-' if value is None else value}")
    raise typer.Exit(int(found["service"] != "active"))


@app.command(context_settings=_RELAYED)
def logs(
    context: typer.Context,
    boards: BoardsArgument = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Last lines to show.")] = 50,
) -> None:
    """Show the installed service's log."""
    from fer_agent.system import installed_service

    if boards or context.args:
        _relay(context)
    installed_service.show_log(follow=follow, lines=lines)


@app.command(context_settings=_RELAYED)
def doctor(
    context: typer.Context,
    boards: BoardsArgument = None,
    *,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check everything a running agent needs; each finding says what mends it."""
    from fer_agent.doctor import run as checks

    if boards or context.args:
        _relay(context)
    report = checks.examine(config)
    if as_json:
        print_json(asdict(report))
    else:
        for finding in report.findings:
            typer.echo(f"{finding.id}: {finding.cause}\n  {finding.remedy}\n  $ {finding.command}")
        typer.echo(f"{len(report.findings)} findings in {', '.join(report.checked)}", err=True)
    raise typer.Exit(int(bool(report.findings)))


def _relay(context: typer.Context) -> NoReturn:
    """Hand a command over to provisioning with everything that followed its name."""
    from fer_agent.system import installed_service

    name = context.info_name or ""
    installed_service.relay(name, sys.argv[sys.argv.index(name) + 1 :])
