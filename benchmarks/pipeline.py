"""What a frame costs beyond its two networks, and what the running agent keeps in memory.

Limits: a frame, decoding of the source excluded, takes at most 1.25 times the two networks' own
`session.run` on the same frames in the same process; `fer-agent run` with YuNet keeps at most 75 MB
of private dirty memory (smaps_rollup).

    OMP_NUM_THREADS=1 taskset -c 1 python benchmarks/pipeline.py --shared ../shared
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import cv2
import numpy as np

from fer_agent import compose
from fer_agent.config import AgentConfig
from fer_agent.records import CameraStats, Frame
from fer_agent.runtime.onnx import OnnxSession

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

FRAME_SIZE = (640, 480)
FRAME_NS = 33_000_000
WARM_UP = 60


class TimedSession(OnnxSession):
    """A session that adds up the time inside the runtime's own `run`."""

    spent_ns = 0

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        super().__init__(path, threads=threads)
        inner = self._session.run

        def run(*args: Any) -> Any:
            started_ns = time.thread_time_ns()
            outputs = inner(*args)
            TimedSession.spent_ns += time.thread_time_ns() - started_ns
            return outputs

        self._session = SimpleNamespace(run=run)


class MemoryCamera:
    """Plays pictures from memory and times what the pipeline does with each."""

    def __init__(self, pictures: list[NDArray[np.uint8]], count: int) -> None:
        self._pictures = pictures
        self._count = count
        self.frame_ns: list[int] = []
        self.network_ns: list[int] = []

    def frames(self) -> Iterator[Frame]:
        """Yield the pictures in turn, as a camera of 30 frames a second would."""
        for number in range(self._count):
            # Written just before it is handed over, as a decoded or captured picture is.
            bgr = self._pictures[number % len(self._pictures)].copy()
            frame = Frame(_luma(bgr), (number + 1) * FRAME_NS, number, lambda bgr=bgr: bgr)
            TimedSession.spent_ns = 0
            started_ns = time.thread_time_ns()
            yield frame
            self.frame_ns.append(time.thread_time_ns() - started_ns)
            self.network_ns.append(TimedSession.spent_ns)

    def stats(self) -> CameraStats:
        """Count nothing."""
        return CameraStats(captured=0, dropped=0, reopened=0)

    def close(self) -> None:
        """Hold nothing."""


def _luma(bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY), np.uint8)


def two_faces(shared: Path) -> list[NDArray[np.uint8]]:
    """Return a clip of two people, and their way back so that nobody jumps."""
    clip = []
    capture = cv2.VideoCapture(
        str(shared / "media" / "head-pose-face-detection-female-and-male.gif")
    )
    while (read := capture.read())[0]:
        clip.append(np.asarray(cv2.resize(read[1], FRAME_SIZE), np.uint8))
    capture.release()
    facing = clip[:20]
    return [*facing, *facing[::-1]]


def no_face(shared: Path, count: int = 40) -> list[NDArray[np.uint8]]:
    """Return photos without a face."""
    photos: list[NDArray[np.uint8]] = []
    with tarfile.open(shared / "data" / "faces.tar.xz", "r|xz") as archive:
        for member in archive:
            if "/negatives/" in member.name and (file := archive.extractfile(member)):
                content = np.frombuffer(file.read(), np.uint8)
                photo = cv2.imdecode(content, cv2.IMREAD_COLOR)
                photos.append(np.asarray(cv2.resize(photo, FRAME_SIZE), np.uint8))
                if len(photos) == count:
                    break
    return photos


def configuration(args: argparse.Namespace) -> AgentConfig:
    """Make the default configuration with the local copy of YuNet."""
    return AgentConfig.model_validate(
        {
            "deployment": {"context": "research"},
            "camera": {"main": {"source": "memory"}},
            "detector": {
                "backend": "yunet",
                "model_file": args.shared / "models" / "yunet_s_dynamic.onnx",
            },
            "models": {"path": args.models},
        }
    )


def measure_frames(args: argparse.Namespace, pictures: list[NDArray[np.uint8]]) -> dict[str, float]:
    """Run the composed pipeline, stage clocks and publisher included, over pictures."""
    camera = MemoryCamera(pictures, args.frames + WARM_UP)
    TimedSession.spent_ns = 0
    with mock.patch.object(compose, "OnnxSession", TimedSession):
        agent = compose.build(
            configuration(args), compose.RunOptions(), new_camera=lambda *_: camera
        )
    (worker,) = agent._workers  # noqa: SLF001  the pipeline without its thread
    worker.pipeline.run()
    frame_ms = np.array(camera.frame_ns[WARM_UP:]) / 1e6
    network_ms = np.array(camera.network_ns[WARM_UP:]) / 1e6
    return {
        "frame_ms": float(np.median(frame_ms)),
        "networks_ms": float(np.median(network_ms)),
        "ratio": float(np.median(frame_ms / network_ms)),
        "ratio_of_sums": float(frame_ms.sum() / network_ms.sum()),
    }


def measure_memory(args: argparse.Namespace, seconds: float) -> float:
    """Return the private dirty memory, in MB, of `fer-agent run` on a looping clip."""
    clip = args.shared / "media" / "head-pose-face-detection-female-and-male.gif"
    config = f"""
[deployment]
context = "research"
[camera.main]
source = "{clip.resolve()}"
loop = true
[detector]
backend = "yunet"
model_file = "{(args.shared / "models" / "yunet_s_dynamic.onnx").resolve()}"
[mqtt]
broker = "mqtt://127.0.0.1:9"
"""
    if args.models:
        config += f'[models]\npath = "{args.models.resolve()}"\n'
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.toml"
        path.write_text(config, encoding="utf-8")
        command = [sys.executable, "-m", "fer_agent.cli", "run", "--config", str(path)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)  # noqa: S603
        time.sleep(seconds)
        if process.poll() is not None:
            raise SystemExit(f"fer-agent run ended early: {process.communicate()[1]}")
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii")
        process.terminate()
        process.communicate(timeout=10)
    figures = dict(line.split(":", 1) for line in rollup.splitlines()[1:])
    return int(figures["Private_Dirty"].split()[0]) / 1024


def main() -> None:
    """Print the figures and the limits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--models", type=Path, default=None, help="model store, if not the shipped")
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=12.0, help="of the memory measurement")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    for title, pictures in (
        ("two faces", two_faces(args.shared)),
        ("no face", no_face(args.shared)),
    ):
        found = measure_frames(args, pictures)
        print(
            f"{title}: frame {found['frame_ms']:.2f} ms, networks {found['networks_ms']:.2f} ms, "
            f"median ratio {found['ratio']:.3f}, ratio of sums {found['ratio_of_sums']:.3f} "
            "(limit 1.25)"
        )
    print(f"private dirty memory: {measure_memory(args, args.seconds):.1f} MB (limit 75)")


if __name__ == "__main__":
    main()
