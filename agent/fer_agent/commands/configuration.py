"""`config init`, `validate`, `show` and `schema`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from fer_agent.commands.options import (
    BrokerOption,
    ConfigOption,
    ContextOption,
    JsonOption,
    option,
    overrides,
)
from fer_agent.commands.terminal import print_json
from fer_agent.errors import AgentError, UsageError

app = typer.Typer(help="Write, check and show the configuration.", no_args_is_help=True)


@app.command("init")
def config_init(
    path: Annotated[
        Path | None,
        typer.Argument(
            help="File to write, or - for stdout; by default the first place looked at."
        ),
    ] = None,
    *,
    context: ContextOption = None,
    source: Annotated[str | None, option("Source of a camera called main.")] = None,
    broker: BrokerOption = None,
    force: Annotated[bool, typer.Option(help="Replace a file that is there.")] = False,
) -> None:
    """Write a configuration file with every key, its default and what it means."""
    from fer_agent.config import loading

    text = loading.template(overrides(context=context, source=source, broker=broker))
    if path == Path("-"):
        typer.echo(text, nl=False)
        return
    target = path or loading.default_places(os.environ)[0]
    if target.exists() and not force:
        raise UsageError(f"{target} is already there", remedy="add --force to replace it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"cannot write {target}: {error.strerror}", remedy="name a file that can be written"
        ) from error
    typer.echo(f"wrote {target}", err=True)


@app.command("validate")
def config_validate(*, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Check the configuration; ends with 78 when it is wrong."""
    from fer_agent.config import loading

    try:
        settings = loading.load(config)
    except AgentError as error:
        if as_json:
            print_json({"valid": False, "error": str(error), "remedy": error.remedy})
            raise typer.Exit(error.exit_code) from error
        raise
    if as_json:
        print_json({"valid": True, "cameras": list(settings.camera)})
    else:
        typer.echo(f"the configuration is valid: device {settings.device.id}")


@app.command("show")
def config_show(*, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show the effective configuration and where each value came from."""
    from fer_agent.config import loading
    from fer_agent.config.problems import without_credentials

    settings, origins = loading.read(config)
    if as_json:
        # One value a line, so that no credentials are looked for across two of them.
        text = without_credentials(settings.model_dump_json(indent=1))
        print_json({"config": json.loads(text)})
    else:
        typer.echo(loading.render(settings, origins), nl=False)


@app.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of the configuration."""
    from fer_agent.config import loading

    typer.echo(json.dumps(loading.schema(), indent=2))
