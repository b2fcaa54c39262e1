"""Memory, descriptors, threads and time per frame over a long run.

First the whole pipeline over 20,000 frames of a looping clip, then 200 times the loss and return of
a camera: a real GStreamer child that is killed. Limits: after the first 1,000 frames the private
dirty memory grows by less than 2 MB, descriptors and threads by none, and the time per frame by
less than a tenth.

    OMP_NUM_THREADS=1 python benchmarks/soak_cameras.py --shared ../shared
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import statistics
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from fer_agent.app import compose
from fer_agent.camera import capture
from fer_agent.camera.backends.gstreamer import GstSource
from fer_agent.camera.sources import make_camera
from fer_agent.camera.threaded import ThreadedCamera
from fer_agent.config.model import AgentConfig
from fer_agent.vision.records import CameraState, CameraStatus, Frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fer_agent.vision.records import CameraStats, Gap

LIMIT_MB = 2.0
LIMIT_DRIFT = 1.1


@dataclass(frozen=True, slots=True)
class ProcessSample:
    """The process's resources at one moment."""

    at: int
    memory_mb: float
    descriptors: int
    threads: int
    frame_ms: float

    def __str__(self) -> str:
        return (
            f"{self.at:>7} {self.memory_mb:>10.2f} {self.descriptors:>12} {self.threads:>8} "
            f"{self.frame_ms:>9.2f}"
        )


def sample(at: int, frame_ms: float) -> ProcessSample:
    """Take a sample of this process."""
    gc.collect()
    rollup = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    (line,) = (line for line in rollup.splitlines() if line.startswith("Private_Dirty"))
    memory_mb = int(line.split()[1]) / 1024
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    return ProcessSample(at, memory_mb, descriptors, threading.active_count(), frame_ms)


class SampledCamera:
    """A camera that ends after so many frames, with a sample every so often."""

    def __init__(self, camera: ThreadedCamera, *, count: int, every: int) -> None:
        self._camera = camera
        self._count = count
        self._every = every
        self.samples: list[ProcessSample] = []
        self.close = camera.close

    def stats(self) -> CameraStats:
        """Count as the camera."""
        return self._camera.stats()

    def frames(self) -> Iterator[Frame | Gap]:
        """Yield the camera's frames and time what the pipeline does with each."""
        taken, spent_ms = 0, []
        for item in self._camera.frames():
            started_s = time.thread_time()
            yield item
            if not isinstance(item, Frame):
                continue
            spent_ms.append((time.thread_time() - started_s) * 1e3)
            taken += 1
            if taken % self._every == 0:
                self.samples.append(sample(taken, statistics.median(spent_ms)))
                print(self.samples[-1], flush=True)
                spent_ms.clear()
            if taken == self._count:
                self._camera.close()


def soak_clip(args: argparse.Namespace) -> list[ProcessSample]:
    """Run the composed pipeline over a looping clip."""
    shared = args.shared.resolve()
    config = AgentConfig.model_validate(
        {
            "deployment": {"context": "research"},
            "camera": {
                "main": {
                    "source": str(
                        shared / "media" / "head-pose-face-detection-female-and-male.gif"
                    ),
                    "pace": "fast",
                    "loop": True,
                }
            },
            "detector": {
                "backend": "yunet",
                "model_file": shared / "models" / "yunet_s_dynamic.onnx",
            },
            "models": {"path": args.models},
        }
    )
    camera = make_camera("main", config.camera["main"], lambda _: None)
    sampled = SampledCamera(camera, count=args.frames, every=min(1000, args.frames // 4))
    options = compose.RunOptions(publish=False)
    agent = compose.build(config, options, new_camera=lambda *_: sampled)  # type: ignore[arg-type, return-value]  # it is a camera that counts
    agent.run()
    return sampled.samples


def soak_losses(args: argparse.Namespace) -> tuple[list[ProcessSample], list[float]]:
    """Kill a camera's child again and again; return samples, and seconds until frames came back."""
    # As after a minute of good frames each time; else waiting would be most of the run.
    capture.LONGEST_WAIT_S = 0.5
    elements = ["videotestsrc", "is-live=true", "pattern=ball"]
    source = GstSource(elements, width=320, height=240, name="the test picture")
    statuses: list[CameraStatus] = []
    camera = ThreadedCamera(
        source, name="lost", gap_s=0.2, live=True, on_status=statuses.append, frozen_s=4.0
    )
    frames = camera.frames()
    samples, back_s = [], []
    for loss in range(1, args.losses + 1):
        next(item for item in frames if isinstance(item, Frame))
        killed_s = time.monotonic()
        os.kill(source._child._process.pid, signal.SIGKILL)  # type: ignore[union-attr]  # noqa: SLF001  it is open
        while camera.stats().reopened < loss:
            next(frames)
        next(item for item in frames if isinstance(item, Frame))
        back_s.append(time.monotonic() - killed_s)
        if loss % max(1, args.losses // 10) == 0:
            samples.append(sample(loss, 0.0))
            print(samples[-1], flush=True)
    camera.close()
    told = sum(status.state is CameraState.OFFLINE for status in statuses)
    print(f"told offline {told} times of {args.losses}")
    return samples, back_s


def verdict(samples: list[ProcessSample]) -> bool:
    """Compare the last sample with the first one; print and return whether all is within limits."""
    first, last = samples[0], samples[-1]
    grown_mb = max(one.memory_mb for one in samples[1:]) - first.memory_mb
    drift = last.frame_ms / first.frame_ms if first.frame_ms else 1.0
    more_files, more_threads = last.descriptors - first.descriptors, last.threads - first.threads
    print(
        f"memory {grown_mb:+.2f} MB at most, descriptors {more_files:+d}, "
        f"threads {more_threads:+d}, time per frame x {drift:.2f}"
    )
    return (
        grown_mb < LIMIT_MB
        and last.descriptors <= first.descriptors
        and last.threads <= first.threads
        and drift < LIMIT_DRIFT
    )


def main() -> None:
    """Print samples of the process, and whether it stayed within the limits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--models", type=Path, default=None, help="model store, if not the shipped")
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--losses", type=int, default=200)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    print("     at memory_mb  descriptors  threads  frame_ms")
    good = verdict(soak_clip(args)) if args.frames else True
    if args.losses:
        samples, back_s = soak_losses(args)
        good = verdict(samples) and good
        print(f"back after {statistics.median(back_s):.2f} s, at worst {max(back_s):.2f} s")
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
