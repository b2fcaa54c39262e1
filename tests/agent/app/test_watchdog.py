from __future__ import annotations

import logging
import os
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from fer_agent.app.watchdog import ServiceManager, Watchdog
from fer_agent.camera.threaded import ThreadedCamera
from fer_agent.errors import CameraError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class NotifySocket:
    """systemd's end of the socket."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)
        self.environ = {
            "NOTIFY_SOCKET": str(path),
            "WATCHDOG_USEC": "1000",
            "WATCHDOG_PID": str(os.getpid()),
        }

    def heard(self) -> list[str]:
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return messages


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[NotifySocket]:
    one = NotifySocket(tmp_path / "notify")
    yield one
    one.socket.close()


def notify(watchdog: Watchdog, *ended: str) -> None:
    time.sleep(0.002)  # longer than the watchdog's interval, so that no call counts as too early
    watchdog.notify(ended)


def test_ready_and_stopping_are_told(listener: NotifySocket) -> None:
    watchdog = Watchdog({}, ServiceManager(listener.environ))
    watchdog.ready()
    watchdog.stopping()
    assert listener.heard() == ["READY=1", "STOPPING=1"]


def test_sign_of_life_is_withheld_while_a_worker_stands_still(
    listener: NotifySocket, caplog: pytest.LogCaptureFixture
) -> None:
    turns = {"front": 0, "back": 0}
    pulses = {name: lambda name=name: turns[name] for name in turns}
    watchdog = Watchdog(pulses, ServiceManager(listener.environ))
    notify(watchdog)
    turns |= {"front": 1, "back": 1}
    notify(watchdog)
    assert [message.split("\n")[0] for message in listener.heard()] == ["WATCHDOG=1"] * 2
    turns["front"] = 2
    with caplog.at_level(logging.WARNING):
        notify(watchdog)
        notify(watchdog)
    assert listener.heard() == []
    assert [one.getMessage().split(";")[0] for one in caplog.records] == [
        "camera back does not move",
        "camera front, back does not move",
    ]
    turns |= {"front": 3, "back": 2}
    notify(watchdog)
    assert len(listener.heard()) == 1


def test_worker_that_ended_is_not_waited_for(listener: NotifySocket) -> None:
    watchdog = Watchdog({"clip": lambda: 7}, ServiceManager(listener.environ))
    notify(watchdog)
    notify(watchdog, "clip")
    assert listener.heard()[-1] == "WATCHDOG=1\nSTATUS=0 of 1 cameras run"


def test_nothing_is_said_where_nobody_listens() -> None:
    watchdog = Watchdog({"front": lambda: 0}, ServiceManager({}))
    watchdog.ready()
    watchdog.notify()
    assert watchdog.interval_s == float("inf")


def test_variables_meant_for_another_process_are_ignored(listener: NotifySocket) -> None:
    manager = ServiceManager({**listener.environ, "WATCHDOG_PID": "1"})
    assert manager.watchdog_s == float("inf")


def test_lost_message_is_logged_and_nothing_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}).notify("READY=1")
    assert "cannot tell systemd READY=1" in caplog.text


class MissingDevice:
    """A device that is not there."""

    def open(self) -> None:
        raise CameraError("no camera at /dev/video9", remedy="plug it in")

    def read(self) -> None:
        raise AssertionError

    def close(self) -> None:
        pass


class HangingFile:
    """A file on a server that went away: reading it does not return."""

    def __init__(self, hang: threading.Event) -> None:
        self.hang = hang

    def open(self) -> None:
        pass

    def read(self) -> None:
        self.hang.wait(120)

    def close(self) -> None:
        pass


def iterate(camera: ThreadedCamera) -> threading.Thread:
    thread = threading.Thread(target=lambda: list(camera.frames()))
    thread.start()
    return thread


def stands_still(camera: ThreadedCamera) -> bool:
    """Tell whether there is no turn in ten times the wait for one."""
    before = camera.turns
    time.sleep(0.2)
    return camera.turns == before


def test_missing_camera_goes_on_turning(wait_for: Callable[..., None]) -> None:
    camera = ThreadedCamera(
        MissingDevice(), name="front", gap_s=0.05, live=True, on_status=lambda _: None
    )
    thread = iterate(camera)
    try:
        wait_for(lambda: camera.turns >= 5)
    finally:
        camera.close()
        thread.join()


def test_file_whose_reading_hangs_stands_still(wait_for: Callable[..., None]) -> None:
    hang = threading.Event()
    camera = ThreadedCamera(
        HangingFile(hang), name="clip", gap_s=0.02, live=False, on_status=lambda _: None,
        deadline_s=0.05,
    )  # fmt: skip
    thread = iterate(camera)
    try:
        wait_for(lambda: thread.is_alive() and stands_still(camera))
    finally:
        hang.set()
        camera.close()
        thread.join()
