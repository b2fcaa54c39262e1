"""`mqtt test`."""

from __future__ import annotations

from dataclasses import asdict

import typer

from fer_agent.commands.options import (
    BrokerOption,
    CaFileOption,
    ConfigOption,
    JsonOption,
    PasswordFileOption,
    UsernameOption,
    load_for_broker,
)
from fer_agent.commands.terminal import print_json
from fer_agent.errors import FindingsError

app = typer.Typer(help="Check the way to the MQTT broker.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Check the way to the MQTT broker."""


@app.command("test")
def mqtt_test(
    *,
    config: ConfigOption = None,
    broker: BrokerOption = None,
    username: UsernameOption = None,
    password_file: PasswordFileOption = None,
    ca_file: CaFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send a message to the broker and back; ends with 1 when this user may not."""
    from fer_agent.mqtt import check

    settings = load_for_broker(
        config, broker=broker, username=username, password_file=password_file, ca_file=ca_file
    )
    report = check.check(settings.mqtt, settings.device.id)
    if as_json:
        print_json({"authorised": report.authorised, **asdict(report)})
    else:
        typer.echo("\n".join(report.lines()))
    if not report.authorised:
        raise typer.Exit(FindingsError.exit_code)
