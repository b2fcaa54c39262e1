from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from typer.testing import CliRunner

from fer_agent.cli import app

if TYPE_CHECKING:
    from pathlib import Path

GIF = "media/head-pose-face-detection-female-and-male.gif"


@pytest.fixture
def invoke(shared: Path, tmp_path: Path) -> CliRunner:
    """A runner with YuNet from the shared folder and no configuration of this user's own."""
    return CliRunner(
        env={
            "XDG_CONFIG_HOME": str(tmp_path),
            "FER_AGENT__MODELS__PATH": str(tmp_path),
            "FER_AGENT__DETECTOR__MODEL_FILE": str(shared / "models" / "yunet_s_dynamic.onnx"),
        }
    )


def test_list_names_each_camera_or_says_that_there_is_none(invoke: CliRunner) -> None:
    result = invoke.invoke(app, ["camera", "list", "--json"])
    assert result.exit_code == 0
    cameras = json.loads(result.stdout)["cameras"]
    assert all(camera["source"] and camera["backend"] for camera in cameras)
    if not cameras:
        assert "no camera found" in invoke.invoke(app, ["camera", "list"]).stderr


def test_test_tells_size_rate_and_faces(invoke: CliRunner, shared: Path) -> None:
    arguments = ["camera", "test", str(shared / GIF), "--seconds", "1", "--json"]
    result = invoke.invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["schema_version"], report["width"], report["height"]) == (1, 480, 270)
    assert 5 < report["fps"] < 30
    assert 1 <= len(report["faces"]) <= 2
    assert report["faults"] == []


def test_test_saves_a_picture_only_where_it_is_told_to(
    invoke: CliRunner, shared: Path, tmp_path: Path
) -> None:
    path = tmp_path / "last.png"
    source = str(shared / "media" / "astronaut.png")
    assert invoke.invoke(app, ["camera", "test", source]).exit_code == 0
    assert not path.exists()
    assert invoke.invoke(app, ["camera", "test", source, "--save", str(path)]).exit_code == 0
    with Image.open(path) as saved:
        assert saved.size == (512, 512)


def test_test_of_a_missing_camera_is_a_clear_error(invoke: CliRunner) -> None:
    result = invoke.invoke(app, ["camera", "test", "/dev/video77"])
    assert "/dev/video77" in str(result.exception)
    assert getattr(result.exception, "exit_code", None) == 69
