"""Options that several commands share, and how they override the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="Configuration file; by default the user's, else /etc/fer-agent/config.toml.",
        show_default=False,
    ),
]
ContextOption = Annotated[
    str | None,
    typer.Option(
        help="Where the device is used: home, research, accessibility, entertainment, medical, "
        "safety or public.",
        show_default=False,
    ),
]
BrokerOption = Annotated[
    str | None, typer.Option(help="mqtt:// or mqtts:// address.", show_default=False)
]
UsernameOption = Annotated[
    str | None, typer.Option(help="User name at the broker.", show_default=False)
]
PasswordFileOption = Annotated[
    Path | None, typer.Option(help="File that holds the password.", show_default=False)
]
CaFileOption = Annotated[
    Path | None, typer.Option(help="CA certificates for TLS.", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def overrides(
    *, context: str | None = None, source: str | None = None, broker: str | None = None
) -> dict[str, Any]:
    """Return what a command's options set in the configuration; None sets nothing."""
    return {
        "deployment.context": context,
        "camera.main.source": source,
        "mqtt.broker": broker,
    }


def mqtt_overrides(
    broker: str | None, username: str | None, password_file: Path | None, ca_file: Path | None
) -> dict[str, Any]:
    """Return what a command's options set in the broker's section; None sets nothing."""
    return {
        "mqtt.broker": broker,
        "mqtt.username": username,
        "mqtt.password_file": password_file,
        "mqtt.ca_file": ca_file,
    }
