"""Options that several commands share, and the configuration that they override."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fer_agent.config.model import AgentConfig


def option(help_text: str, *names: str, **more: Any) -> Any:
    """Return an option without its default in the help; `more` is as for `typer.Option`."""
    return typer.Option(*names, help=help_text, show_default=False, **more)


ConfigOption = Annotated[
    Path | None,
    option(
        "Configuration file; by default the user's, else /etc/fer-agent/config.toml.", "--config"
    ),
]
ContextOption = Annotated[
    str | None,
    option(
        "Where the device is used: home, research, accessibility, entertainment, medical, "
        "safety or public."
    ),
]
BrokerOption = Annotated[str | None, option("mqtt:// or mqtts:// address.")]
UsernameOption = Annotated[str | None, option("User name at the broker.")]
PasswordFileOption = Annotated[Path | None, option("File that holds the password.")]
CaFileOption = Annotated[Path | None, option("CA certificates for TLS.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def overrides(
    *, context: str | None = None, source: str | None = None, broker: str | None = None
) -> dict[str, Any]:
    """Return the keys of the configuration that options set; None sets nothing."""
    return {"deployment.context": context, "camera.main.source": source, "mqtt.broker": broker}


def load_for_broker(config: Path | None, **broker: str | Path | None) -> AgentConfig:
    """Load a configuration, perhaps without cameras, and set keys of its section `mqtt`.

    Args:
        config: the file; None looks in the usual places.
        broker: values by their keys; None sets nothing.

    Raises:
        ConfigError: the configuration is wrong.
    """
    from fer_agent.config import loading

    options = {f"mqtt.{key}": value for key, value in broker.items()}
    return loading.load_incomplete(config, overrides=options)
