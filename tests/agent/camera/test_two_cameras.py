"""Two cameras in one `fer-agent run`: what happens to one is nothing to the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.broker

CAMERA = Path(__file__).with_name("web_camera.py")


@contextmanager
def web_camera(clip: Path, count: int, port: int = 0) -> Iterator[int]:
    command = [sys.executable, str(CAMERA), str(clip), str(port), str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


@contextmanager
def running(config: Path, home: Path) -> Iterator[subprocess.Popen[str]]:
    """An agent that is killed at the end if it still runs."""
    command = [sys.executable, "-m", "fer_agent.cli", "run", "--config", str(config)]
    with subprocess.Popen(
        command, env={**os.environ, "HOME": str(home)}, stderr=subprocess.PIPE, text=True
    ) as agent:
        try:
            yield agent
        finally:
            agent.kill()


def config_file(folder: Path, shared: Path, broker: str, ports: dict[str, int]) -> Path:
    lines = [
        '[device]\nid = "fer-test"',
        '[deployment]\ncontext = "research"',
        f'[mqtt]\nbroker = "{broker}"',
        f'[models]\npath = "{folder}"',
        f'[detector]\nmodel_file = "{shared / "models" / "yunet_s_dynamic.onnx"}"',
        "[smoother]\nupdate_s = 1.0",
        *(
            f'[camera.{name}]\nsource = "http://127.0.0.1:{port}/video"\nfrozen_s = 0.0\n'
            # On a busy machine pictures may stay away from the steady camera too for a moment.
            f"gap_s = {60.0 if name == 'steady' else 2.0}"
            for name, port in ports.items()
        ),
    ]
    path = folder / "config.toml"
    path.write_text("\n".join(lines))
    return path


def test_a_killed_camera_comes_back_while_the_other_goes_on(
    tmp_path: Path,
    shared: Path,
    hub: Any,
    port: int,
    wait_for: Callable[..., None],
) -> None:
    clip = shared / "media" / "head-pose-face-detection-female-and-male.gif"

    def events(camera: str) -> list[dict[str, Any]]:
        return [json.loads(one.payload) for one in hub.listener.on(f"cameras/{camera}/events")]

    def told(camera: str) -> list[str]:
        return [event["type"].split(".")[2] for event in events(camera)]

    def state(camera: str) -> list[str]:
        return hub.listener.states(f"cameras/{camera}/status")[-1:]

    with web_camera(clip, 20) as steady, ExitStack() as stack:
        with web_camera(clip, 20, port) as killed:
            ports = {"steady": steady, "killed": killed}
            path = config_file(tmp_path, shared, hub.broker.uri, ports)
            agent = stack.enter_context(running(path, tmp_path))
            wait_for(lambda: told("steady").count("started") == 2)
            wait_for(lambda: told("killed").count("started") >= 2)
        wait_for(lambda: state("killed") == ["offline"])
        wait_for(lambda: hub.listener.last("alerts/camera-killed"))
        wait_for(lambda: told("killed").count("ended") == told("killed").count("started"))
        before = len(events("steady"))
        wait_for(lambda: len(events("steady")) > before + 2)  # it goes on meanwhile
        gone = told("killed").count("started")
        with web_camera(clip, 20, port):
            wait_for(lambda: state("killed") == ["online"])
            wait_for(lambda: hub.listener.last("alerts/camera-killed") == b"")
            wait_for(lambda: told("killed").count("started") >= gone + 2)
            agent.terminate()
            _, stderr = agent.communicate(timeout=120)
    assert agent.returncode == 0, stderr
    assert "not delivered" not in stderr
    wait_for(lambda: told("steady").count("ended") >= 2)
    # The same two people all the time, and no event lost.
    assert {event["subject"] for event in events("steady")} == {"1", "2"}
    assert told("steady").count("started") == 2
    assert all(one.payload == b"" for one in hub.listener.on("alerts/camera-steady"))
    sequence = [int(event["sequence"]) for event in events("steady")]
    assert sequence == list(range(1, len(sequence) + 1))
