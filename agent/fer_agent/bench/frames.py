"""The measurement of whole frames in the agent's pipeline, by stage or for some minutes.

The pipeline is the one that `compose.build` makes for `fer-agent run`; only its camera differs.
Events go into its outbox and no further, as there is no broker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from fer_agent.app import compose
from fer_agent.bench.crowd import CrowdSource
from fer_agent.bench.protocol import StopFlag, summary
from fer_agent.camera.backends.replay import ReplaySource
from fer_agent.camera.contract import FrameSource
from fer_agent.camera.threaded import ThreadedCamera
from fer_agent.config.model import AgentConfig, CameraConfig, MqttConfig
from fer_agent.errors import FindingsError
from fer_agent.models.store import find_model
from fer_agent.system import memory
from fer_agent.vision.crop import crop_faces
from fer_agent.vision.pipeline import Pipeline
from fer_agent.vision.ports import Camera, EmotionClassifier
from fer_agent.vision.records import CameraStatus, EmotionScores, Frame, Gap, Tracks
from fer_agent.vision.timing import StageClock, timed

CAMERA: Final = "bench"
SCENE: Final = "scene"

_NO_BROKER: Final = "mqtt://127.0.0.1:9"
"""An address that the outbox needs; it is never connected."""

_LONGEST_PIECE_S: Final = 10.0
_PIECES: Final = 120
"""Points of a long run's plot, about."""


def measure_frames(
    task: dict[str, Any], stop: StopFlag, tell: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Run the pipeline as a task says.

    Args:
        task: `config` (the agent's, as JSON), `clip` (a path, or `SCENE`), `faces` in the scene,
            `warmup` and `frames` to measure, or `sustained_s`.
        stop: ends the measurement early.
        tell: called with a sample every few seconds of a sustained run.

    Returns:
        Fields of a `PipelineResult`; none of a sustained run.

    Raises:
        CameraError: the clip cannot be played.
        FindingsError: the clip has no faces.
        ModelError: no usable classifier or detector.
        InferenceError: a network failed while running.
    """
    source = TimedSource(_source(task))
    config = _config(AgentConfig.model_validate_json(task["config"]), task["clip"])

    def new_camera(
        name: str, section: CameraConfig, on_status: Callable[[CameraStatus], None]
    ) -> ThreadedCamera:
        return ThreadedCamera(
            source, name=name, gap_s=section.gap_s, live=False, lossless=True, on_status=on_status
        )

    waiting = compose.RunOptions(wait_for_engines=True)
    agent = compose.build(config, waiting, new_camera=new_camera)
    pipeline = agent.pipelines[CAMERA]
    if task.get("sustained_s") is not None:
        rate = _SustainedRate(task["sustained_s"], stop, tell)
        replace(pipeline, camera=MeasuredCamera(pipeline.camera, rate.frame_done)).run()
        return {}
    store = config.store
    size = find_model(config.classifier.model, store).manifest.input.size
    tally = FrameTally(task["warmup"], task["frames"], stop, source)
    instrument(pipeline, tally, size).run()
    return tally.found(task["clip"])


def instrument(pipeline: Pipeline, tally: FrameTally, crop_size: tuple[int, int]) -> Pipeline:
    """Wrap the stages of a composed pipeline in timers."""
    return replace(
        pipeline,
        camera=MeasuredCamera(pipeline.camera, tally.frame_done),
        detector=timed(pipeline.detector, "detect", tally.clock),
        tracker=timed(pipeline.tracker, "track", tally.clock),
        classifier=MeasuredClassifier(pipeline.classifier, tally, crop_size),
        smoother=timed(pipeline.smoother, "smooth", tally.clock),
        publisher=timed(pipeline.publisher, "publish", tally.clock),
    )


class TimedSource:
    """A frame source whose reading is timed, without the wait for a taker."""

    def __init__(self, source: FrameSource) -> None:
        self._source = source
        self.open = source.open
        self.close = source.close
        self.durations_ns: list[int] = []

    def read(self) -> Frame | Gap | None:
        """Read the next picture."""
        started_ns = time.perf_counter_ns()
        picture = self._source.read()
        if picture is not None and not isinstance(picture, Gap):
            self.durations_ns.append(time.perf_counter_ns() - started_ns)
        return picture


class MeasuredCamera:
    """A camera that times the pipeline's work on each frame; satisfies `Camera`.

    Args:
        camera: the pipeline's own.
        frame_done: called with a frame's nanoseconds; returns whether to go on.
    """

    def __init__(self, camera: Camera, frame_done: Callable[[int], bool]) -> None:
        self._camera = camera
        self._frame_done = frame_done
        self.close = camera.close

    def frames(self) -> Iterator[Frame | Gap]:
        """Yield the camera's frames until enough are measured."""
        for frame in self._camera.frames():
            started_ns = time.perf_counter_ns()
            yield frame
            took_ns = time.perf_counter_ns() - started_ns
            if not isinstance(frame, Gap) and not self._frame_done(took_ns):
                self._camera.close()
                return


class MeasuredClassifier:
    """A classifier whose calls and crops are timed; satisfies `EmotionClassifier`.

    Crops are cut a second time to time them, after the real call and on the same boxes; that time
    is subtracted from the frame's.
    """

    def __init__(
        self, classifier: EmotionClassifier, tally: FrameTally, crop_size: tuple[int, int]
    ) -> None:
        self._classify = tally.clock.timed("classify", classifier.classify)
        self._tally = tally
        self._crop_size = crop_size

    def classify(self, frame: Frame, tracks: Tracks) -> EmotionScores:
        """Classify all tracked faces of one frame in one batch."""
        scores = self._classify(frame, tracks)
        started_ns = time.perf_counter_ns()
        if len(tracks):
            crop_faces(frame.luma, tracks.xyxy, self._crop_size)
        self._tally.cropped(len(tracks), time.perf_counter_ns() - started_ns)
        return scores


class FrameTally:
    """The durations of one pipeline's frames, without the first ones."""

    def __init__(self, warmup: int, frames: int, stop: StopFlag, source: TimedSource) -> None:
        self.clock = StageClock()
        self._warmup = warmup
        self._frames = frames
        self._stop = stop
        self._source = source
        self._seen = 0
        self._crop_ns = 0
        self._faces = 0
        self._start()

    def cropped(self, faces: int, took_ns: int) -> None:
        """Add the duration of cutting the present frame's crops."""
        self._crop_ns = took_ns
        self._faces += faces
        if faces:
            self._stages_ns["crop"].append(took_ns)

    def frame_done(self, took_ns: int) -> bool:
        """Add a frame; return whether to go on."""
        self._seen += 1
        if self._seen == self._warmup:
            self.clock.take()
            self._start()
        elif self._seen > self._warmup:
            self._frame_ns.append(took_ns - self._crop_ns)
            for stage, samples_ms in self.clock.take().items():
                if stage != "total":
                    self._stages_ns[stage] += [round(ms * 1e6) for ms in samples_ms]
        return len(self._frame_ns) < self._frames and not self._stop.is_set

    def found(self, clip: str) -> dict[str, Any]:
        """Return the fields of a `PipelineResult`.

        Raises:
            FindingsError: there were frames, and no face in any of them.
        """
        wall_s = max(time.perf_counter() - self._started_s, 1e-9)
        cpu_s = time.process_time() - self._cpu_started_s
        measured = len(self._frame_ns)
        if clip != SCENE and measured and not self._faces:
            raise FindingsError(
                f"nobody's face was found in the {measured} frames measured of {clip}",
                remedy="name a clip with faces of 32 pixels and more, or leave --clip out",
            )
        stages = dict(self._stages_ns)
        # Classification includes cropping; subtracted, the stages add up to the frame.
        crops = iter(stages["crop"])
        if self._faces and len(stages["crop"]) == len(stages["classify"]):
            stages["classify"] = [max(0, whole - next(crops)) for whole in stages["classify"]]
        stages["capture"] = self._source.durations_ns[self._captured :]
        return {
            "faces_seen": round(self._faces / measured, 2) if measured else None,
            "frame_ms": summary(self._frame_ns),
            "fps": round(measured / wall_s, 2) if measured else None,
            "cpu_share": round(cpu_s / wall_s, 3) if measured else None,
            "stages_ms": {
                stage: found for stage, samples in stages.items() if (found := summary(samples))
            },
            "memory": memory.figures(),
        }

    def _start(self) -> None:
        self._frame_ns: list[int] = []
        self._stages_ns: dict[str, list[int]] = {
            stage: [] for stage in ("detect", "track", "crop", "classify", "smooth", "publish")
        }
        self._faces = 0
        self._captured = len(self._source.durations_ns)
        self._started_s = time.perf_counter()
        self._cpu_started_s = time.process_time()


class _SustainedRate:
    """Frames a second, piece by piece, for a given time."""

    def __init__(
        self, seconds: float, stop: StopFlag, tell: Callable[[dict[str, Any]], None]
    ) -> None:
        self._seconds = seconds
        self._piece_s = min(max(seconds / _PIECES, 1.0), _LONGEST_PIECE_S)
        self._stop = stop
        self._tell = tell
        self._frames = 0
        self._began_s = 0.0
        self._piece_began_s = 0.0

    def frame_done(self, _took_ns: int) -> bool:
        """Count a frame; return whether to go on. The first one starts the clock."""
        now_s = time.monotonic()
        if not self._began_s:
            self._began_s = self._piece_began_s = now_s
            return not self._stop.is_set
        self._frames += 1
        is_over = now_s - self._began_s >= self._seconds or self._stop.is_set
        if is_over or now_s - self._piece_began_s >= self._piece_s:
            lasted_s = max(now_s - self._piece_began_s, 1e-9)
            self._tell(
                {"at_s": round(now_s - self._began_s, 2), "fps": round(self._frames / lasted_s, 2)}
            )
            self._frames, self._piece_began_s = 0, now_s
        return not is_over


def _source(task: dict[str, Any]) -> FrameSource:
    if task["clip"] == SCENE:
        return CrowdSource(task["faces"])
    return ReplaySource(Path(task["clip"]), fps=30.0, pace="fast", loop=True)


def _config(config: AgentConfig, clip: str) -> AgentConfig:
    """Return the configuration with our camera, no broker, and a detector that never rests."""
    return config.model_copy(
        update={
            "camera": {CAMERA: CameraConfig(source=clip, pace="fast")},
            "detector": config.detector.model_copy(update={"rest_s": 0.0}),
            "mqtt": MqttConfig(broker=_NO_BROKER),
        }
    )
