from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from fer_agent.camera.backends.csi import GstSource
from fer_agent.camera.backends.picam import PicamSource
from fer_agent.camera.backends.replay import ReplaySource
from fer_agent.camera.backends.stream import StreamSource
from fer_agent.camera.backends.v4l2 import V4l2Source
from fer_agent.camera.sources import backend_of, make_camera, make_source
from fer_agent.config.model import CameraConfig
from fer_agent.errors import CameraError
from fer_agent.vision.records import Frame

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("source", "backend", "kind"),
    [
        ("0", "v4l2", V4l2Source),
        ("/dev/video0", "v4l2", V4l2Source),
        ("/dev/v4l/by-id/usb-Cam-video-index0", "v4l2", V4l2Source),
        ("picam:0", "picam", PicamSource),
        ("csi:1", "csi", GstSource),
        ("rtsp://camera.local/stream", "stream", StreamSource),
        ("https://camera.local/video", "stream", StreamSource),
        ("clip.mp4", "replay", ReplaySource),
        ("/home/pi/faces", "replay", ReplaySource),
        ("csi", "replay", ReplaySource),
    ],
)
def test_each_source_has_its_backend(source: str, backend: str, kind: type) -> None:
    assert backend_of(source) == backend
    assert isinstance(make_source(CameraConfig(source=source)), kind)


def test_an_unknown_scheme_is_refused_with_those_there_are() -> None:
    with pytest.raises(CameraError, match="gopher://") as caught:
        make_source(CameraConfig(source="gopher://camera"))
    assert "rtsp://" in caught.value.remedy


def test_a_fast_file_loses_nothing(tmp_path: Path) -> None:
    for number in range(20):
        Image.new("L", (8, 8), number).save(tmp_path / f"{number}.png")
    statuses: list[Any] = []
    config = CameraConfig(source=str(tmp_path), pace="fast")
    camera = make_camera("folder", config, statuses.append)
    shades = [int(item.luma[0, 0]) for item in camera.frames() if isinstance(item, Frame)]
    camera.close()
    assert shades == list(range(20))
