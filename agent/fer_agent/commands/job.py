"""`run`, `demo` and `watch`: run the agent, show it, watch its messages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fer_agent.commands.options import (
    BrokerOption,
    CaFileOption,
    ConfigOption,
    ContextOption,
    JsonOption,
    PasswordFileOption,
    UsernameOption,
    load_for_broker,
    option,
    overrides,
)
from fer_agent.commands.terminal import live_view, progress_bar, stopping
from fer_agent.errors import CameraError, ConfigError

if TYPE_CHECKING:
    from fer_agent.config.model import AgentConfig

app = typer.Typer()


@app.command()
def run(
    *,
    config: ConfigOption = None,
    context: ContextOption = None,
    source: Annotated[
        str | None,
        option("Camera device or media file; replaces the file's cameras with one called main."),
    ] = None,
    broker: Annotated[str | None, option("mqtt:// or mqtts:// address, or `none`.")] = None,
    max_frames: Annotated[int | None, option("End after so many frames.", min=1)] = None,
    record: Annotated[
        Path | None,
        option("Write each frame's boxes, ids and probabilities to this JSON-lines file."),
    ] = None,
) -> None:
    """Run the agent: the service's main process."""
    from fer_agent.app import compose
    from fer_agent.system import memory

    publish = broker != "none"
    settings = _load_config(
        config, context=context, source=source, broker=broker if publish else None
    )
    try:
        with progress_bar("Downloading the face detector") as progress:
            agent = compose.build(
                settings,
                compose.RunOptions(
                    publish=publish, max_frames=max_frames, record=record, progress=progress
                ),
            )
        memory.trim_heap()
        with stopping(agent.stop):
            agent.run()
    except CameraError as error:
        # Only a file, or an address of no known kind, raises it; a restart fixes neither.
        raise ConfigError(str(error), remedy=error.remedy) from error


@app.command()
def demo(
    *,
    seconds: Annotated[
        float | None, typer.Option(min=1.0, help="How long; by default one tour of the scene.")
    ] = None,
    source: Annotated[
        str | None, option("Camera device or media file instead of the scene.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the main job here: a scene, the agent, a broker, and what arrives."""
    from fer_agent.demo.run import Demo, DemoOptions

    show = Demo(DemoOptions(seconds=seconds, source=source))
    try:
        with progress_bar("Downloading the face detector") as progress:
            show.open(progress)
        view = live_view("fer-agent demo", as_json=as_json, events_only=True)
        with stopping(show.stop), view as on_arrival:
            summary = show.run(on_arrival)
    finally:
        show.close()
    typer.echo(summary.as_json() if as_json else summary.as_text())


@app.command()
def watch(
    *,
    config: ConfigOption = None,
    broker: BrokerOption = None,
    username: UsernameOption = None,
    password_file: PasswordFileOption = None,
    ca_file: CaFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Watch every device's events and health live, until Ctrl-C."""
    from fer_agent.watch.listener import Watcher

    mqtt = load_for_broker(
        config, broker=broker, username=username, password_file=password_file, ca_file=ca_file
    ).mqtt
    watcher = Watcher(mqtt)
    watcher.connect()
    try:
        with stopping(watcher.stop), live_view(mqtt.broker, as_json=as_json) as on_arrival:
            for arrived in watcher.arrivals():
                on_arrival(arrived)
    finally:
        watcher.close()


def _load_config(path: Path | None, *, source: str | None, **options: str | None) -> AgentConfig:
    from fer_agent.config import loading

    settings = loading.load(path, overrides=overrides(source=source, **options))
    if source is None:
        return settings
    return settings.model_copy(update={"camera": {"main": settings.camera["main"]}})
