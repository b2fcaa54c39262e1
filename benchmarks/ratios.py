"""The agent's cost beyond its two networks: each figure with its limit, in one run on one core.

Times are compared in pairs, first one then the other and the other way round, as processor time of
the thread. Each figure is the lower quartile, because other work on the machine only ever adds.

    OMP_NUM_THREADS=1 taskset -c 1 python benchmarks/ratios.py --shared ../shared [--only NAME ...]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import running
from scenes import FRAME_SIZE, TWO_PEOPLE, MemoryCamera, UsbSource, no_face, noisy, two_faces

from fer_agent.app import compose
from fer_agent.camera.backends.replay import make_frame
from fer_agent.camera.threaded import ThreadedCamera
from fer_agent.config.model import AgentConfig, DetectorConfig
from fer_agent.detector.letterbox import Letterbox
from fer_agent.detector.yunet import YuNetDetector
from fer_agent.inference.onnx import OnnxSession
from fer_agent.models.store import find_model
from fer_agent.vision.classifier import CropClassifier
from fer_agent.vision.crop import crop_faces
from fer_agent.vision.records import Tracks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Bgr = NDArray[np.uint8]

SETTLE_S = 4
"""Seconds before the idle scene is measured, in which the agent makes sure that it is empty."""


class Figure(NamedTuple):
    """One number and its limit."""

    title: str
    value: float
    unit: str
    limit: float
    at_most: bool = True
    beside: str = ""

    def __str__(self) -> str:
        """Return the line to print."""
        held = self.value <= self.limit if self.at_most else self.value >= self.limit
        word = "at most" if self.at_most else "at least"
        verdict = "ok" if held else "MISSED"
        limit = f"{word} {self.limit:g}{self.unit}"
        return f"{verdict:6} {self.title}: {self.value:.3g}{self.unit} ({limit}) {self.beside}"


class Bench:
    """The measurements and their common settings."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.shared: Path = args.shared
        self.rounds: int = args.rounds
        self.seconds: float = args.seconds
        self.yunet_file = (args.shared / "models" / "yunet_s_dynamic.onnx").resolve()
        self.model = find_model("microexpnet-ferplus", Path("/nowhere"))
        self.clip = (args.shared / "media" / TWO_PEOPLE).resolve()
        self.pictures = two_faces(args.shared)

    def config(self) -> AgentConfig:
        """Make the default configuration with the local copy of YuNet and the shipped model."""
        return AgentConfig.model_validate(
            {
                "deployment": {"context": "research"},
                "camera": {"main": {"source": "memory"}},
                "detector": {"backend": "yunet", "model_file": self.yunet_file},
                "models": {"path": running.store()},
            }
        )

    def classifier(self) -> Iterator[Figure]:
        """Crops in, probabilities out, against the bare network on the same crops."""
        session = OnnxSession(self.model.verified_file("fp32"))
        classifier = CropClassifier(session, self.model.manifest)
        frame = make_frame(self.pictures[0], 1, 1)
        for count in (1, 8):
            left = np.linspace(20, 500, count, dtype=np.float32)
            xyxy = np.stack((left, left, left + 90, left + 110), axis=1)
            xyxy[:, 1::2] -= left[:, np.newaxis] * 0.4
            tracks = _tracks(xyxy)
            crops = crop_faces(frame.luma, xyxy, self.model.manifest.input.size)
            agent, bare = paired(
                lambda tracks=tracks: classifier.classify(frame, tracks),
                _bare(session, crops),
                self.rounds,
            )
            yield _ratio(f"classifier call, {count} face(s), over the bare network", agent, bare)

    def pipeline(self) -> Iterator[Figure]:
        """A frame through the composed pipeline, against the two bare networks on its pictures."""
        detector = OnnxSession(self.yunet_file)
        classifier = OnnxSession(self.model.verified_file("fp32"))
        letterbox = Letterbox(FRAME_SIZE, DetectorConfig().long_side)
        for title, pictures, faces in (
            ("two faces", self.pictures, 2),
            ("nobody", no_face(self.shared), 0),
        ):
            letterbox.fill(make_frame(pictures[0], 1, 1))
            find = _bare(detector, letterbox.tensor)
            read = _bare(classifier, np.zeros((faces, 1, 48, 48), np.uint8)) if faces else None
            frame_ns: list[int] = []
            bare_ns: list[int] = []

            def frame_done(
                spent_ns: int,
                find: Callable[[], object] = find,
                read: Callable[[], object] | None = read,
                lists: tuple[list[int], list[int]] = (frame_ns, bare_ns),
            ) -> None:
                lists[0].append(spent_ns)
                # The networks cost the same whatever is in their pictures.
                lists[1].append(_spent_ns(find) + (_spent_ns(read) if read else 0))

            camera = MemoryCamera(pictures, self.rounds, frame_done)
            agent = compose.build(
                self.config(),
                compose.RunOptions(publish=True),
                new_camera=lambda *_, camera=camera: camera,
            )
            agent.pipelines["main"].run()
            yield _ratio(f"frame with {title}, over the bare networks", frame_ns, bare_ns)

    def detector(self) -> Iterator[Figure]:
        """YuNet as the agent runs it, against OpenCV's own on the same pictures."""
        ours = YuNetDetector(OnnxSession(self.yunet_file), DetectorConfig())
        theirs = running.opencv_yunet(self.yunet_file)
        long_side = DetectorConfig().long_side
        size = (long_side, long_side * FRAME_SIZE[1] // FRAME_SIZE[0])
        theirs.setInputSize(size)
        frames = [make_frame(picture, 1, 1) for picture in self.pictures]
        turn = iter(range(10 * self.rounds))
        agent, opencv = paired(
            lambda: ours.detect(frames[next(turn) % len(frames)]),
            lambda: theirs.detect(cv2.resize(frames[next(turn) % len(frames)].bgr(), size)),
            self.rounds // 2,
        )
        yield Figure(
            "detector stage, times as fast as FaceDetectorYN",
            quartile_ms(opencv) / quartile_ms(agent),
            "",
            1.8,
            at_most=False,
            beside=f"{quartile_ms(agent):.2f} ms, OpenCV {quartile_ms(opencv):.2f} ms",
        )

    def idle(self) -> Iterator[Figure]:
        """The whole agent's processor time with nobody there, against two moving people."""
        empty = noisy(no_face(self.shared, 1)[0])
        busy = self._cpu_share(self.pictures)
        idle = self._cpu_share(empty)
        yield Figure(
            "idle scene, share of a busy one's processor time",
            100 * idle / busy,
            " %",
            25,
            beside=f"{100 * idle:.1f} % of a core, busy {100 * busy:.1f} %",
        )

    def memory(self) -> Iterator[Figure]:
        """Private memory of `fer-agent run` with both networks."""
        # The first start compiles Python files and prepares networks; the next ones count.
        running.memory_mb(self.clip, self.yunet_file, frames=1)
        clip, _ = running.memory_mb(self.clip, self.yunet_file)
        with tempfile.TemporaryDirectory() as folder:
            # As large in memory as the 640x480 pictures of a USB camera, which are YUYV.
            for number, picture in enumerate(self.pictures):
                cv2.imwrite(f"{folder}/{number:02}.jpg", cv2.resize(picture, (480, 270)))
            dirty, unique = running.memory_mb(Path(folder), self.yunet_file)
        yield Figure(
            "Private_Dirty of `fer-agent run`",
            dirty,
            " MB",
            60,
            beside=f"unique set size {unique:.1f} MB; {clip:.1f} MB with FFmpeg, as for a video, "
            "a GIF or a stream; aim 48",
        )

    def start(self) -> Iterator[Figure]:
        """From the start of the process to the first event at a broker on this machine."""
        # The first one compiles Python files and prepares networks; it is the only one that does.
        _, *runs = [running.first_event_s(self.clip, self.yunet_file) for _ in range(6)]
        waited, spent = zip(*runs, strict=True)
        yield Figure(
            "first event after the start of the process",
            min(waited),
            " s",
            1.5,
            beside=f"fastest of {len(runs)}, median {np.median(waited):.2f} s; "
            f"{min(spent):.2f} s of processor time",
        )

    def publish(self) -> Iterator[Figure]:
        """Handing one event over, on the pipeline's thread."""
        for title, pause_s in (("in a burst", 0.0), ("500 a second", 0.002)):
            yield _publishing(f"{title}, nobody listens", running.publish_us(self.rounds, pause_s))
            with running.broker() as port:
                taken = running.publish_us(self.rounds, pause_s, port)
            yield _publishing(f"{title}, to a broker", taken)

    def _cpu_share(self, pictures: list[Bgr]) -> float:
        """Return the processor time that the agent takes for each second of a USB camera.

        All of its threads, by the camera's clock: so a machine that is busy with other things, on
        which a real camera would lose frames, gives the same answer.
        """
        cpu_s: dict[int, float] = {}

        def note(second: int) -> None:
            cpu_s[second] = time.process_time()

        seconds = SETTLE_S + round(self.seconds)
        source = UsbSource(pictures, seconds, note)

        def new_camera(name: str, *_: object) -> ThreadedCamera:
            return ThreadedCamera(
                source, name=name, gap_s=60.0, live=False, lossless=True, on_status=lambda _: None
            )

        options = compose.RunOptions(publish=False)
        compose.build(self.config(), options, new_camera=new_camera).run()
        return (cpu_s[seconds] - cpu_s[SETTLE_S]) / (seconds - SETTLE_S)


def paired(
    first: Callable[[], object], second: Callable[[], object], rounds: int
) -> tuple[list[int], list[int]]:
    """Time two calls in turn, each as often the first as the second of its pair.

    Returns:
        Nanoseconds of the thread's processor time, round by round.
    """
    spent: tuple[list[int], list[int]] = ([], [])
    for number in range(rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            spent[which].append(_spent_ns((first, second)[which]))
    return spent


def quartile_ms(spent_ns: list[int]) -> float:
    """Return the lower quartile in milliseconds, the first tenth left out as a warm-up."""
    return float(np.percentile(spent_ns[len(spent_ns) // 10 :], 25)) / 1e6


def _ratio(title: str, ours_ns: list[int], bare_ns: list[int]) -> Figure:
    median = float(np.median(np.array(ours_ns) / np.array(bare_ns)))
    ours, bare = quartile_ms(ours_ns), quartile_ms(bare_ns)
    beside = f"{ours:.3f} ms, bare {bare:.3f} ms; median of the pairs' ratios {median:.3f}"
    return Figure(title, ours / bare, "", 1.15, beside=beside)


def _publishing(title: str, taken_us: list[float]) -> Figure:
    beside = f"p99 {np.percentile(taken_us, 99):.0f} us"
    return Figure(f"publishing, {title}", float(np.median(taken_us)), " us", 50, beside=beside)


def _spent_ns(call: Callable[[], object]) -> int:
    started_ns = time.thread_time_ns()
    call()
    return time.thread_time_ns() - started_ns


def _bare(session: OnnxSession, tensor: NDArray[np.generic]) -> Callable[[], object]:
    """Return the runtime's own call, with nothing of the agent's around it."""
    bare = session._session  # noqa: SLF001  what the agent wraps
    (name,) = (each.name for each in bare.get_inputs())
    outputs = [each.name for each in bare.get_outputs()]
    return lambda: bare.run(outputs, {name: tensor})


def _tracks(xyxy: NDArray[np.float32]) -> Tracks:
    count = len(xyxy)
    return Tracks(
        track_id=np.arange(1, count + 1, dtype=np.int64),
        xyxy=xyxy,
        score=np.ones(count, np.float32),
        landmarks=np.zeros((count, 5, 2), np.float32),
        frame_size=FRAME_SIZE,
    )


NAMES = ("classifier", "pipeline", "detector", "idle", "memory", "start", "publish")


def main() -> None:
    """Print the figures; ends with 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--rounds", type=int, default=1000, help="pairs of each comparison")
    parser.add_argument("--seconds", type=float, default=10.0, help="of what runs for a while")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    bench = Bench(args)
    missed = 0
    with tempfile.TemporaryDirectory() as home:
        running.use_home(Path(home))
        for name in args.only:
            for figure in getattr(bench, name)():
                print(figure, flush=True)
                missed += str(figure).startswith("MISSED")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
