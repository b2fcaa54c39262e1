"""The self-test's child process: loads a model, checks its outputs and times it.

Run as `python -m fer_agent.updates.activation.self_test_child`; takes a `SelfTestTask` on stdin,
answers with a `SelfTestReport` on stdout. A model's fault comes back as `refused`; anything else,
such as a crash in native code, shows by how the process ends.
"""

from __future__ import annotations

import contextlib
import os
import resource
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from fer_agent.errors import AgentError
from fer_agent.inference import golden
from fer_agent.inference.onnx import OnnxSession
from fer_agent.models.store import StoredModel, read_model
from fer_agent.system.records import FrozenRecord
from fer_agent.vision.classifier import CropClassifier

_WARM_UP_RUNS = 5
_TIMED_RUNS = 41
_NICENESS = 10
"""The agent beside keeps its frames."""


class SelfTestTask(FrozenRecord):
    """The models to compare, and how they run.

    Attributes:
        candidate: folder of the version that may take over.
        current: folder of the version that runs now; None when there is none to compare with.
        precision: the file that runs on this board.
        threads: threads inside one inference.
        memory_bytes: the most private memory that the process may take.
    """

    candidate: Path
    current: Path | None
    precision: Literal["fp32", "fp16", "int8"]
    threads: int
    memory_bytes: int


class SelfTestReport(FrozenRecord):
    """The result.

    Attributes:
        refused: why the model cannot be used; empty when it can.
        golden: whether it was compared with golden inputs.
        candidate_ms: median processor time of one face.
        current_ms: the same of the version that runs now; None without one to compare with.
        peak_bytes: resident memory at its highest, Python and libraries included.
    """

    refused: str = ""
    golden: bool = False
    candidate_ms: float | None = None
    current_ms: float | None = None
    peak_bytes: int = 0


def main() -> None:
    """Test the model of the task on stdin and answer on stdout."""
    task = SelfTestTask.model_validate_json(sys.stdin.read())
    resource.setrlimit(resource.RLIMIT_DATA, (task.memory_bytes, task.memory_bytes))
    with contextlib.suppress(PermissionError):  # a sandbox may forbid it
        os.nice(_NICENESS)
    sys.stdout.write(_test(task).model_dump_json())


def _test(task: SelfTestTask) -> SelfTestReport:
    try:
        candidate = _load(task.candidate, task)
        compared = candidate.agrees_with_golden(task.precision)
    except AgentError as error:
        return SelfTestReport(refused=str(error))
    except MemoryError:
        return SelfTestReport(refused=f"it needs more than {task.memory_bytes} bytes of memory")
    current = None
    if task.current is not None:
        try:
            current = _load(task.current, task)
        except AgentError as error:
            sys.stderr.write(f"nothing to compare the speed with: {error}\n")
    candidate_ms, current_ms = _race(candidate, current)
    return SelfTestReport(
        golden=compared,
        candidate_ms=candidate_ms,
        current_ms=current_ms,
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A model in this process."""

    model: StoredModel
    session: OnnxSession
    classifier: CropClassifier

    def agrees_with_golden(self, precision: str) -> bool:
        """Compare it with its golden inputs; returns False when it came without any.

        Raises:
            ModelError: the golden inputs are damaged, or the outputs differ too much.
        """
        path = self.model.golden_file()
        if path is None:
            return False
        golden.check(self.session, golden.load(path), golden.TOLERANCES[precision])
        return True

    def one_face_ms(self) -> float:
        """Classify one face and return the processor time that it took.

        Not wall time: other work on the board can fall on one of two models that take turns (seen:
        21 ms against 1.6 for the same network).
        """
        face = np.full((1, 1, *self.model.manifest.input.size), 127, np.uint8)
        started_ns = time.process_time_ns()
        self.classifier.probs(face)
        return (time.process_time_ns() - started_ns) / 1e6


def _load(folder: Path, task: SelfTestTask) -> _Loaded:
    model = read_model(folder)
    session = OnnxSession(model.verified_file(task.precision), threads=task.threads)
    return _Loaded(model, session, CropClassifier(session, model.manifest))


def _race(candidate: _Loaded, current: _Loaded | None) -> tuple[float, float | None]:
    """Return both medians in milliseconds, taken in turns so that heat slows both alike."""
    runners = [candidate] if current is None else [candidate, current]
    for runner in runners:
        for _ in range(_WARM_UP_RUNS):
            runner.one_face_ms()
    rounds = [[runner.one_face_ms() for runner in runners] for _ in range(_TIMED_RUNS)]
    medians = [statistics.median(times) for times in zip(*rounds, strict=True)]
    return medians[0], medians[1] if current is not None else None


if __name__ == "__main__":
    main()
