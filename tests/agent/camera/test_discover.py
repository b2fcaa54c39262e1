from __future__ import annotations

import fcntl
import os
import sys
from typing import TYPE_CHECKING

import fake_picamera2
import pytest
from fake_v4l2 import WEBCAM, FakeDriver

from fer_agent.camera import discover
from fer_agent.camera.discover import find_cameras

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(fcntl, "ioctl", FakeDriver(WEBCAM).ioctl)
    monkeypatch.setitem(sys.modules, "picamera2", None)
    for number in (10, 2):
        (tmp_path / f"video{number}").touch()
    (tmp_path / "by-id").mkdir()
    (tmp_path / "by-id" / "usb-Test_Cam-video-index0").symlink_to(tmp_path / "video10")
    return tmp_path


def test_cameras_are_listed_in_order_with_a_name_that_stays(devices: Path) -> None:
    found = find_cameras(devices, devices / "by-id")
    assert [one.source for one in found] == [
        str(devices / "video2"),
        str(devices / "by-id" / "usb-Test_Cam-video-index0"),
    ]
    assert {(one.backend, one.name, one.problem) for one in found} == {("v4l2", "Test Cam", "")}
    assert "YUYV 640x480 at 30 fps" in [str(mode) for mode in found[0].modes]


def test_a_camera_without_permission_is_listed_with_the_remedy(
    devices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:  # root may open anything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    found = find_cameras(devices, devices / "by-id")
    assert len(found) == 2
    assert all("no permission" in one.problem and "usermod" in one.remedy for one in found)


def test_jetson_sensors_are_csi_cameras(devices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = FakeDriver(WEBCAM)
    driver.name = b"tegra-video"
    monkeypatch.setattr(fcntl, "ioctl", driver.ioctl)
    monkeypatch.setattr(discover.shutil, "which", lambda _: None)
    found = find_cameras(devices, devices / "by-id")
    assert [(one.source, one.backend) for one in found] == [("csi:0", "csi"), ("csi:1", "csi")]
    assert all("GStreamer is not installed" in one.problem for one in found)


def test_pi_cameras_come_from_libcamera_without_the_webcams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", fake_picamera2)
    found = find_cameras(tmp_path, tmp_path)
    assert [(one.source, one.name) for one in found] == [("picam:0", "imx708")]


def test_no_camera_is_an_empty_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    assert find_cameras(tmp_path, tmp_path) == []
