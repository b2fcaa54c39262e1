"""A child process that measures one setting: `python -m fer_agent.measure.child`.

It reads a task as JSON from stdin and writes a measurement to stdout. Thread pools are fresh, and a
runtime that crashes takes down nothing else.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import time
from pathlib import Path

from fer_agent.errors import AgentError
from fer_agent.inference import golden
from fer_agent.inference.golden import Golden
from fer_agent.inference.opening import open_model
from fer_agent.inference.setting import Setting
from fer_agent.measure.record import Measurement
from fer_agent.models.store import read_model
from fer_agent.system.records import FrozenRecord
from fer_agent.vision.ports import InferenceSession

_WARM_UP_RUNS = 20
_PARTS = 10


class SettingTask(FrozenRecord):
    """A setting to measure."""

    folder: Path
    """The model's."""
    store: Path
    """The model store, where engines are kept."""
    setting: Setting
    runs: int
    niceness: int = 0


def main() -> None:
    """Measure the setting on stdin and answer on stdout."""
    task = SettingTask.model_validate_json(sys.stdin.read())
    with contextlib.suppress(PermissionError):  # a sandbox may forbid it
        os.nice(task.niceness)
    sys.stdout.write(_measure(task).model_dump_json())


def _measure(task: SettingTask) -> Measurement:
    try:
        model = read_model(task.folder)
        answers = golden.of_model(model)
        session = open_model(model, task.setting, task.store, answers)
        agreement = golden.compare(session, answers)
        agrees = agreement.within(golden.TOLERANCES[task.setting.precision])
        return Measurement(
            setting=task.setting,
            latency_ms=_latency_ms(session, answers, task.runs) if agrees else None,
            largest_difference=agreement.largest_difference,
            label_disagreements=agreement.label_disagreements,
            problem="" if agrees else "does not agree with FP32",
        )
    except AgentError as error:
        return Measurement(setting=task.setting, problem=str(error))


def _latency_ms(session: InferenceSession, answers: Golden, runs: int) -> float:
    """Return the median of the calmest of ten parts: other work makes a part slower, never faster.

    Batch 1, as in the paper: most frames have one face.
    """
    face = answers.input[:1]
    for _ in range(_WARM_UP_RUNS):
        session.run(face)
    medians = []
    for _ in range(_PARTS):
        times_ns = []
        for _ in range(max(1, runs // _PARTS)):
            started_ns = time.perf_counter_ns()
            session.run(face)
            times_ns.append(time.perf_counter_ns() - started_ns)
        medians.append(statistics.median(times_ns))
    return min(medians) / 1e6


if __name__ == "__main__":
    main()
