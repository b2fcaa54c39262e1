"""One run of the bench: every network, every number of faces, then a sustained run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from fer_agent import __version__
from fer_agent.bench import machine, paper, subjects
from fer_agent.bench.frames import SCENE
from fer_agent.bench.protocol import Protocol
from fer_agent.bench.record import (
    BenchReport,
    BoardReading,
    NetworkResult,
    PipelineResult,
    Problem,
    ProtocolRecord,
    Sustained,
    SustainedSample,
)
from fer_agent.bench.runner import Runner
from fer_agent.bench.subjects import Candidate
from fer_agent.config.model import AgentConfig
from fer_agent.errors import CameraError, DownloadError
from fer_agent.system import board

FACES: Final = (1, 2, 4, 8)
FRAMES: Final = 300
_WARMUP_FRAMES: Final = 60
_SUSTAINED_FACES: Final = 1


@dataclass(frozen=True, slots=True)
class Options:
    """The scope of a bench.

    Attributes:
        protocol: passes of each network.
        frames: frames of each pipeline run; None takes `FRAMES`, or fewer with fewer passes.
        choice: the networks, runtimes and threads.
        faces: people in the drawn scene, one run of the pipeline for each number.
        clip: a media file instead of the scene.
        sustained_minutes: duration of the last run; None leaves it out.
        networks: whether networks are measured alone.
        pipeline: whether the pipeline is measured.
    """

    protocol: Protocol = field(default_factory=Protocol)
    frames: int | None = None
    choice: subjects.SubjectChoice = field(default_factory=subjects.SubjectChoice)
    faces: tuple[int, ...] = FACES
    clip: Path | None = None
    sustained_minutes: float | None = None
    networks: bool = True
    pipeline: bool = True

    @property
    def frame_count(self) -> int:
        """Frames measured in each pipeline run."""
        return min(self.protocol.runs, FRAMES) if self.frames is None else self.frames


class BenchSession:
    """Measures with a configuration; `run` in one thread, `stop` also from a signal handler."""

    def __init__(
        self, config: AgentConfig, options: Options, on_step: Callable[[str], None]
    ) -> None:
        """List the networks to measure; nothing runs yet.

        Args:
            config: the agent's; its models, detector and threads are the pipeline's.
            options: the scope.
            on_step: called with a line about each step.

        Raises:
            UsageError: an unknown model or runtime.
            UnavailableError: a runtime that is not here.
            ModelError: a model is damaged.
            CameraError: there is no such clip.
        """
        if options.clip is not None and not options.clip.exists():
            raise CameraError(
                f"there is no clip at {options.clip}",
                remedy="check the path, or leave --clip out for the drawn scene",
            )
        self._options = options
        self._on_step = on_step
        self._runner = Runner()
        self._config, self._detector, self._note = _with_detector(config)
        self._candidates: list[Candidate] = []
        if options.networks:
            self._candidates = subjects.candidates(config, options.choice)

    def stop(self) -> None:
        """End early; `run` returns the results until then."""
        self._runner.stop()

    def run(self) -> BenchReport:
        """Measure everything; failures are in the report with their reasons."""
        options = self._options
        started = datetime.now(timezone.utc)
        here = machine.describe()
        before = board.read_state()
        # First, so that a clip without faces shows at once.
        clips = self._pipelines() if options.clip is not None else ()
        networks = tuple(self._network(each, at) for at, each in enumerate(self._candidates, 1))
        pipelines = clips or self._pipelines()
        sustained = self._sustained() if options.sustained_minutes is not None else None
        after = board.read_state()
        macs = next((one.subject.macs for one in networks if one.subject.macs), None)
        return BenchReport(
            agent_version=__version__,
            started=started,
            finished=datetime.now(timezone.utc),
            interrupted=self._runner.stopped,
            protocol=ProtocolRecord(
                warmup=options.protocol.warmup,
                runs=options.protocol.runs,
                frames=options.frame_count,
            ),
            machine=here,
            before=BoardReading.model_validate(before),
            after=BoardReading.model_validate(after),
            throttled_during=board.was_throttled(before, after),
            networks=tuple(one for one in networks if one.latency_ms or one.problem),
            pipelines=tuple(one for one in pipelines if one.frame_ms or one.problem),
            sustained=sustained,
            paper=paper.rows(here.board, macs),
        )

    def _network(self, candidate: Candidate, number: int) -> NetworkResult:
        subject, protocol = candidate.subject, self._options.protocol
        self._step(
            f"[{number}/{len(self._candidates)}] {subject.title} on {subject.runtime}, "
            f"{subject.threads} thread(s)"
        )
        found = self._runner.run(
            {
                "kind": "network",
                "path": str(candidate.path),
                "runtime": subject.runtime,
                "threads": subject.threads,
                "precision": subject.precision,
                "store": str(self._config.store),
                "shape": candidate.shape or self._options.choice.shape,
                "warmup": protocol.warmup,
                "runs": protocol.runs,
            }
        )
        return NetworkResult(subject=subject, **found)

    def _pipelines(self) -> tuple[PipelineResult, ...]:
        if not self._options.pipeline:
            return ()
        people = self._options.faces if self._options.clip is None else (None,)
        return tuple(self._pipeline(faces) for faces in people)

    def _pipeline(self, faces: int | None) -> PipelineResult:
        clip = self._options.clip
        people = clip.name if clip is not None else f"{faces} face(s)"
        self._step(f"pipeline with {self._detector}, {people}")
        frames = self._options.frame_count
        found = self._runner.run(
            self._frames_task(faces)
            | {"warmup": min(self._options.protocol.warmup, _WARMUP_FRAMES), "frames": frames}
        )
        return PipelineResult(
            clip=SCENE if clip is None else clip.name,
            faces=faces,
            detector=self._detector,
            detector_note=self._note,
            **found,
        )

    def _sustained(self) -> Sustained:
        minutes = self._options.sustained_minutes or 0.0
        faces = self._options.faces[0] if len(self._options.faces) == 1 else _SUSTAINED_FACES
        self._step(f"pipeline for {minutes:g} minutes")
        samples: list[SustainedSample] = []

        def keep(sample: dict[str, Any]) -> None:
            state = board.read_state()
            samples.append(
                SustainedSample(
                    temperature_c=state.temperature_c,
                    clock_mhz=state.clock_mhz,
                    throttled=state.throttled,
                    **sample,
                )
            )
            if samples[-1].at_s // 30 > (samples[-2].at_s if len(samples) > 1 else 0) // 30:
                self._on_step(f"  {samples[-1].at_s:.0f} s: {samples[-1].fps:.1f} frames a second")

        task = self._frames_task(faces) | {"sustained_s": minutes * 60}
        found = self._runner.run(task, keep)
        problem = Problem(**found["problem"]) if "problem" in found else None
        return Sustained(minutes=minutes, faces=faces, samples=tuple(samples), problem=problem)

    def _frames_task(self, faces: int | None) -> dict[str, Any]:
        clip = self._options.clip
        return {
            "kind": "frames",
            "config": self._config.model_dump_json(),
            "clip": SCENE if clip is None else str(clip),
            "faces": faces or 0,
        }

    def _step(self, words: str) -> None:
        if not self._runner.stopped:
            self._on_step(words)


def _with_detector(config: AgentConfig) -> tuple[AgentConfig, str, str | None]:
    """Choose YuNet if its file is there, else the Haar cascade; nothing is downloaded.

    Returns:
        The configuration with it, its name, and why it is not YuNet.
    """
    if config.detector.backend == "haar":
        return config, "haar", None
    try:
        file = subjects.detector_path(config)
    except DownloadError as error:
        detector = config.detector.model_copy(update={"backend": "haar", "download": False})
        note = f"{error}; `fer-agent run` fetches it where it may"
        return config.model_copy(update={"detector": detector}), "haar", note
    detector = config.detector.model_copy(
        update={"backend": "yunet", "model_file": file, "download": False}
    )
    return config.model_copy(update={"detector": detector}), "yunet", None
