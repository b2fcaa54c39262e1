"""The command line, with the commands' names and the exit codes of errors.

Importing this module loads only the standard library and Typer; each command imports the rest when
it runs. Only this module and `fer_agent.commands` print or exit.
"""

from __future__ import annotations

import os
import sys
from enum import Enum
from typing import Annotated

import typer

from fer_agent import __version__
from fer_agent.commands import bench, board, camera, configuration, job, models, mqtt
from fer_agent.errors import AgentError

_BUG = 70

app = typer.Typer(
    name="fer-agent",
    help="Facial emotions on the device: camera frames in, MQTT events out, no picture leaves.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(job.app)
app.add_typer(board.app)
app.add_typer(configuration.app, name="config")
app.add_typer(camera.app, name="camera")
app.add_typer(mqtt.app, name="mqtt")
app.add_typer(models.app, name="models")
app.add_typer(bench.app)


class LogLevel(str, Enum):
    """The log's level."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def main() -> None:
    """Run the command line; errors become one sentence, one remedy and their exit code."""
    try:
        app()
    except AgentError as error:
        typer.echo(f"fer-agent: {error}", err=True)
        typer.echo(f"  {error.remedy}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of the output has ended, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception:  # noqa: BLE001 - process boundary: the traceback is shown, the exit says bug
        import traceback

        traceback.print_exc()
        typer.echo("fer-agent: this is a bug; please report the lines above", err=True)
        sys.exit(_BUG)


@app.callback(invoke_without_command=True)
def _root(
    *,
    log_level: Annotated[LogLevel, typer.Option(help="How much the log says.")] = LogLevel.INFO,
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    from fer_agent.system import log

    if version:
        typer.echo(__version__)
        raise typer.Exit
    log.set_up(log_level.value)


if __name__ == "__main__":
    main()
