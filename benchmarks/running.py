"""Processes and parts of the measurements: the agent itself, OpenCV's YuNet, a publisher."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import onnxruntime
import paho.mqtt.client as paho

from fer_agent.config.model import MqttConfig
from fer_agent.models.emotions import EMOTIONS
from fer_agent.mqtt.messages import Identity
from fer_agent.mqtt.publisher import MqttPublisher
from fer_agent.vision.records import EmotionEvent, EventKind, ModelIdentity

if TYPE_CHECKING:
    from collections.abc import Iterator

SHA256 = "0" * 64
TIMEOUT_S = 60.0


def use_home(home: Path) -> None:
    """Let this process and its children find no model store of this user's own."""
    os.environ.update(HOME=str(home), XDG_CONFIG_HOME=str(home), XDG_DATA_HOME=str(home))
    # Bytecode is kept, as pip does on a board, whatever this user's Python does otherwise.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(home / "bytecode")
    os.environ["FER_AGENT__MODELS__PATH"] = str(home / "models")  # root's would be the service's


def store() -> Path:
    """Return the model store of that home."""
    return Path(os.environ["FER_AGENT__MODELS__PATH"])


@contextlib.contextmanager
def agent(
    source: Path, yunet_file: Path, broker_uri: str, *more: str
) -> Iterator[subprocess.Popen[str]]:
    """Run `fer-agent run` on a source, again and again."""
    environ = {
        **os.environ,
        "FER_AGENT__DETECTOR__MODEL_FILE": str(yunet_file),
        "FER_AGENT__CAMERA__MAIN__LOOP": "true",
        "FER_AGENT__DEVICE__ID": "fer-bench",
    }
    options = ["--context", "research", "--source", str(source), "--broker", broker_uri, *more]
    process = subprocess.Popen(  # noqa: S603  ourselves
        [sys.executable, "-m", "fer_agent.cli", "run", *options],
        env=environ,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
        if process.poll() is not None:
            raise SystemExit(f"fer-agent run ended early: {process.communicate()[1]}")
    finally:
        process.terminate()
        process.communicate(timeout=TIMEOUT_S)


def memory_mb(source: Path, yunet_file: Path, frames: int = 300) -> tuple[float, float]:
    """Run `fer-agent run` until so many frames went through both networks.

    Args:
        source: the clip, played in a loop.
        yunet_file: its detector.
        frames: number of frames.

    Returns:
        `Private_Dirty` and the unique set size, in MB.
    """
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record.jsonl"
        with agent(source, yunet_file, "mqtt://127.0.0.1:9", "--record", str(record)) as process:
            deadline_s = time.monotonic() + TIMEOUT_S * 5
            while not record.exists() or record.read_bytes().count(b"\n") < frames:
                if time.monotonic() > deadline_s:
                    raise SystemExit("fer-agent run does not get on")
                time.sleep(0.5)
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii")
    figures = dict(line.split(":", 1) for line in rollup.splitlines()[1:])
    dirty, clean = (int(figures[f"Private_{kind}"].split()[0]) for kind in ("Dirty", "Clean"))
    return dirty / 1024, (dirty + clean) / 1024


def first_event_s(source: Path, yunet_file: Path) -> tuple[float, float]:
    """Run `fer-agent run` until its first event comes to a broker.

    Returns:
        Seconds from the start of the process, and its processor time until then.
    """
    came, ready = threading.Event(), threading.Event()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = lambda *_: came.set()
    with broker() as port:
        client.connect("127.0.0.1", port)
        client.loop_start()
        client.subscribe("fer/v1/+/cameras/+/events")
        ready.wait(TIMEOUT_S)
        started_s = time.monotonic()
        with agent(source, yunet_file, f"mqtt://127.0.0.1:{port}") as process:
            if not came.wait(TIMEOUT_S):
                raise SystemExit("no event came")
            waited_s = time.monotonic() - started_s
            spent_s = cpu_s(process)
        client.disconnect()
        client.loop_stop()
    return waited_s, spent_s


def cpu_s(process: subprocess.Popen[str]) -> float:
    """Return the processor time that a process has taken so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2]
    return sum(int(ticks) for ticks in fields.split()[11:13]) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def broker() -> Iterator[int]:
    """Run mosquitto on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    program = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        raise SystemExit("the measurement of the first event needs mosquitto")
    process = subprocess.Popen(  # noqa: S603  a fixed program
        [program, "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline_s = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline_s:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(TIMEOUT_S)


def opencv_yunet(yunet_file: Path) -> cv2.FaceDetectorYN:
    """Load YuNet into OpenCV, which reads static graphs only: the sizes are folded in first."""
    options = onnxruntime.SessionOptions()
    for name, length in (("batch", 1), ("height", 640), ("width", 640)):
        options.add_free_dimension_override_by_name(name, length)
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.graph_optimization_level = level
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = f"{folder}/static.onnx"
        onnxruntime.InferenceSession(str(yunet_file), options, providers=["CPUExecutionProvider"])
        return cv2.FaceDetectorYN.create(
            options.optimized_model_filepath, "", (320, 320), 0.6, 0.3, 5000
        )


def publish_us(runs: int, pause_s: float, port: int = 9) -> list[float]:
    """Return the microseconds of handing events over, one by one.

    Args:
        runs: number of events.
        pause_s: between two of them.
        port: of a broker on this machine; where none is, the outbox fills and drops.
    """
    now_ns = time.monotonic_ns()
    event = EmotionEvent(
        kind=EventKind.UPDATED,
        track_id=1,
        captured_ns=now_ns,
        emotion="happy",
        confidence=0.9,
        labels=EMOTIONS[:7],
        probs=np.full(7, 1 / 7, np.float32),
        xyxy=np.array([10, 10, 90, 90], np.float32),
        frame_size=(640, 480),
        started_ns=now_ns,
        model=ModelIdentity("benchmark", "0" * 64),
    )
    identity = Identity.of_this_run("benchmark")
    publisher = MqttPublisher(MqttConfig(broker=f"mqtt://127.0.0.1:{port}"), identity)
    camera = publisher.camera("front")
    publisher.start()
    taken = []
    for _ in range(runs):
        begun_ns = time.perf_counter_ns()
        camera.publish(event)
        taken.append((time.perf_counter_ns() - begun_ns) / 1e3)
        time.sleep(pause_s)
    publisher.stop()
    return taken
