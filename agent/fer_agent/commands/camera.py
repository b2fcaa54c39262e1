"""`camera list` and `camera test`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fer_agent.commands.options import ConfigOption, JsonOption, option, overrides
from fer_agent.commands.terminal import print_json, progress_bar
from fer_agent.errors import FindingsError

app = typer.Typer(help="See which cameras are there, and try one.", no_args_is_help=True)


@app.command("list")
def camera_list(*, as_json: JsonOption = False) -> None:
    """List the cameras of this machine, what they offer, and how to name them as a source."""
    from fer_agent.camera.discover import find_cameras

    cameras = find_cameras()
    if as_json:
        print_json({"cameras": [asdict(camera) for camera in cameras]})
        return
    if not cameras:
        typer.echo(
            "no camera found; network cameras announce nothing, give their address", err=True
        )
    for camera in cameras:
        typer.echo(f"{camera.source}  {camera.name} ({camera.backend})")
        for mode in camera.modes:
            typer.echo(f"    {mode.fourcc} {mode.size_and_rate}")
        if camera.problem:
            typer.echo(f"    {camera.problem}; {camera.remedy}")


@app.command("test")
def camera_test(
    source: Annotated[
        str | None, typer.Argument(help="A source, or a camera's name in the configuration.")
    ] = None,
    *,
    config: ConfigOption = None,
    seconds: Annotated[float, typer.Option(min=0.5, max=600.0, help="How long to look.")] = 5.0,
    save: Annotated[Path | None, option("Keep the last picture in this .jpg or .png file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Try a camera: real frame rate, brightness, sharpness, and which faces would be found."""
    from fer_agent.app import compose
    from fer_agent.camera import probe
    from fer_agent.config import loading

    settings = loading.load_incomplete(config)
    name = source if source in settings.camera else "main"
    if source is not None and name == "main":
        settings = loading.load_incomplete(config, overrides=overrides(source=source))
    elif source is None:
        name = next(iter(settings.camera))
    with progress_bar("Downloading the face detector") as progress:
        detector = compose.make_detector(settings, progress)
    report, picture = probe.probe(
        name,
        settings.camera[name],
        seconds=seconds,
        long_side=settings.detector.long_side,
        detector=detector,
    )
    if save is not None:
        probe.save_picture(picture, save)
    if as_json:
        print_json(asdict(report))
    else:
        typer.echo("\n".join(report.lines()))
    if report.faults:
        raise typer.Exit(FindingsError.exit_code)
