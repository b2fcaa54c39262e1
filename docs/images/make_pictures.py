# ruff: noqa: INP001 - run as a file
"""Make the README's pictures: `python docs/images/make_pictures.py [YuNet's file]`.

`demo.svg` is the live table of a real run, taken while both people are in view for the second
time; `demo-scene.jpg` is the scene at that moment. Run it again after the model or the table
changed.
"""

from __future__ import annotations

import re
import sys
from io import StringIO
from pathlib import Path

import cv2
from rich.console import Console

from fer_agent.config.model import (
    AgentConfig,
    CameraConfig,
    DeploymentConfig,
    DetectorConfig,
    DeviceConfig,
)
from fer_agent.demo.run import DEVICE_ID, SCENE, Demo, DemoOptions
from fer_agent.demo.scene import FPS, Tour
from fer_agent.watch.listener import Arrival, ReceivedMessage
from fer_agent.watch.table import LiveTable

HERE = Path(__file__).parent
MOMENT_S = 19.0
TRACKS = 4


def main() -> None:
    """Run the demo once and write both pictures."""
    table = LiveTable("[bold]$ fer-agent demo[/]")
    console = Console(record=True, width=88, file=StringIO())
    tracks: set[str] = set()

    def on_arrival(arrived: Arrival) -> None:
        table.take(arrived)
        event = arrived.event() if isinstance(arrived, ReceivedMessage) else None
        if event is None:
            return
        new = event.subject not in tracks
        tracks.add(event.subject)
        # The first event after the fourth entrance shows everybody.
        if len(tracks) == TRACKS and not new and not event.type.startswith("fer.track.ended"):
            console.print(table.render())
            demo.stop()

    detector = DetectorConfig(model_file=Path(sys.argv[1])) if sys.argv[1:] else DetectorConfig()
    settings = AgentConfig(
        device=DeviceConfig(id=DEVICE_ID),
        deployment=DeploymentConfig(context="entertainment"),
        camera={SCENE: CameraConfig(source=SCENE)},
        detector=detector,
    )
    demo = Demo(DemoOptions(settings=settings))
    try:
        demo.open()
        demo.run(on_arrival)
    finally:
        demo.close()
    svg = console.export_svg(title="fer-agent demo")
    # Rich's picture would fetch its font from elsewhere; the reader's monospace does as well.
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    # Some viewers strip the space at the beginning of a text unless told not to.
    svg = svg.replace("<svg ", '<svg xml:space="preserve" ', 1)
    (HERE / "demo.svg").write_text(svg, encoding="utf-8")
    still = Tour().draw(round(MOMENT_S * FPS))
    cv2.imwrite(str(HERE / "demo-scene.jpg"), still, [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main()
