"""Two cameras in one agent on a short processor: neither takes the other's share."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from fer_agent.app import compose
from fer_agent.camera.backends.clips import play
from fer_agent.config.model import AgentConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FRAMES = 120


@pytest.fixture
def _one_core() -> Iterator[None]:
    """Leave one core to this thread and those it starts."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture
def scenes(shared: Path, tmp_path: Path) -> dict[str, Path]:
    """Folders of images: two people, and 24 in a picture with twelve times the pixels."""
    clip = shared / "media" / "head-pose-face-detection-female-and-male.gif"
    folders = {name: tmp_path / name for name in ("plain", "crowd")}
    for folder in folders.values():
        folder.mkdir()
    for number, picture in enumerate(play(clip, 10)):
        rgb = picture.bgr[:, :, ::-1]
        Image.fromarray(rgb).save(folders["plain"] / f"{number}.jpg")
        Image.fromarray(np.tile(rgb, (3, 4, 1))).save(folders["crowd"] / f"{number}.jpg")
        if number == 11:
            break
    return folders


def shares(
    cameras: dict[str, Path], shared: Path, record: Path, wait_for: Callable[..., None]
) -> dict[str, int]:
    """Run an agent until it has processed `FRAMES` frames; how many were each camera's."""
    config = AgentConfig.model_validate(
        {
            "deployment": {"context": "research"},
            "detector": {"model_file": shared / "models" / "yunet_s_dynamic.onnx"},
            "camera": {
                name: {"source": str(folder), "fps": 240.0, "loop": True}
                for name, folder in cameras.items()
            },
        }
    )
    agent = compose.build(config, compose.RunOptions(publish=False, record=record))
    thread = threading.Thread(target=agent.run)
    thread.start()
    try:
        wait_for(lambda: record.read_bytes().count(b"\n") > FRAMES)
    finally:
        agent.stop()
        thread.join()
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    return Counter(line["camera"] for line in lines if "camera" in line)


@pytest.mark.usefixtures("_one_core")
def test_two_cameras_alike_get_equal_shares(
    scenes: dict[str, Path], shared: Path, tmp_path: Path, wait_for: Callable[..., None]
) -> None:
    cameras = {"left": scenes["plain"], "right": scenes["plain"]}
    got = shares(cameras, shared, tmp_path / "record.jsonl", wait_for)
    assert min(got["left"], got["right"]) > sum(got.values()) / 3


@pytest.mark.usefixtures("_one_core")
def test_an_expensive_scene_starves_no_other_camera(
    scenes: dict[str, Path], shared: Path, tmp_path: Path, wait_for: Callable[..., None]
) -> None:
    got = shares(scenes, shared, tmp_path / "record.jsonl", wait_for)
    assert got["plain"] > sum(got.values()) / 3
    assert got["crowd"] > sum(got.values()) / 20  # each frame of it costs four of the other
