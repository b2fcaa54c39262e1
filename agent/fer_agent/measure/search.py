"""The search over settings: measures those that may be fastest here, and records the best."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from fer_agent.inference.setting import PLAIN, Setting
from fer_agent.measure import record
from fer_agent.measure.child import SettingTask
from fer_agent.measure.fingerprint import of_this_board
from fer_agent.measure.record import MeasuredChoice, Measurement, best
from fer_agent.models.manifest import Manifest
from fer_agent.models.store import StoredModel
from fer_agent.system import child_process, durable

logger = logging.getLogger(__name__)

_LIMIT_S: dict[str, float] = {"onnx": 300.0, "tensorrt": 1800.0}
"""Longest time of a setting; TensorRT builds its engine within it, minutes on a small board."""


@dataclass(frozen=True, slots=True)
class SettingSearch:
    """Measures settings of a model and chooses among them.

    Attributes:
        runs: timed runs of each setting.
        limit: largest loss of accuracy against FP32, in [0, 1], where the manifest has figures.
        niceness: of the measuring processes.
        within_s: longest time for all settings; the rest is not tried.
        on_start: called with each setting, its number and their count before it is tried.
        on_end: called with each measurement.
    """

    runs: int = 300
    limit: float = 0.01
    niceness: int = 0
    within_s: float = math.inf
    on_start: Callable[[Setting, int, int], None] = lambda _setting, _number, _count: None
    on_end: Callable[[Measurement], None] = lambda _measurement: None

    def run(self, model: StoredModel, store: Path, runtimes: Iterable[str]) -> MeasuredChoice:
        """Measure every setting that makes sense and record the best.

        The old record stays until the end; an interrupted search leaves nothing.

        Args:
            model: the model.
            store: the model store.
            runtimes: names of those that are on this machine.

        Raises:
            ModelError: a file is not the manifest's, or no setting works.
            TemporaryError: another build of this model is under way, or the disk is full.
            ConfigError: the store cannot be written.
        """
        for file in model.manifest.files:
            model.verified_file(file.precision)
        name = model.manifest.name
        with durable.one_at_a_time(record.lock_of(store, name), store, f"another build of {name}"):
            choice = self._choose(model, store, runtimes)
            record.write(store, choice)
        return choice

    def _choose(self, model: StoredModel, store: Path, runtimes: Iterable[str]) -> MeasuredChoice:
        tried = settings(model.manifest, runtimes, len(os.sched_getaffinity(0)))
        ends_s = time.monotonic() + self.within_s
        measured = []
        for number, setting in enumerate(tried, start=1):
            self.on_start(setting, number, len(tried))
            measurement = self.attempt(model, store, setting, ends_s - time.monotonic())
            measured.append(with_loss(model.manifest, measurement, self.limit))
            self.on_end(measured[-1])
        return MeasuredChoice(
            model=model.manifest.name,
            version=model.manifest.version,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            fingerprint=of_this_board(model.manifest),
            limit=self.limit,
            setting=best(measured),
            measured=tuple(measured),
        )

    def attempt(
        self, model: StoredModel, store: Path, setting: Setting, left_s: float = math.inf
    ) -> Measurement:
        """Measure one setting in a child process, for as long as is left at most."""
        if left_s <= 0.0:
            return Measurement(setting=setting, problem="not tried: no time was left")
        task = SettingTask(
            folder=model.folder,
            store=store,
            setting=setting,
            runs=self.runs,
            niceness=self.niceness,
        )
        limit_s = min(left_s, _LIMIT_S[setting.runtime])
        try:
            return child_process.ask("fer_agent.measure.child", task, Measurement, limit_s)
        except child_process.ChildError as error:
            return Measurement(setting=setting, problem=str(error))


def with_loss(manifest: Manifest, measurement: Measurement, limit: float) -> Measurement:
    """Add the manifest's loss of accuracy, as a problem when it is over the limit."""
    have = manifest.file(measurement.setting.precision).validation_accuracy
    full = manifest.file("fp32").validation_accuracy
    if have is None or full is None:
        return measurement
    lost, problem = round(full - have, 6), measurement.problem
    if not problem and lost > limit:
        problem = f"loses {100 * lost:.2f} points of accuracy"
    return measurement.model_copy(update={"accuracy_lost": lost, "problem": problem})


def settings(manifest: Manifest, runtimes: Iterable[str], cores: int) -> list[Setting]:
    """Return the settings that may be fastest: each file, on 1, 2, 4 ... threads up to all cores.

    TensorRT runs FP32 and FP16: it wants INT8 scaled symmetrically, ONNX Runtime's files are not.
    """
    precisions = [file.precision for file in manifest.files]
    threads = [1 << power for power in range(cores.bit_length())]
    tried = []
    for runtime in runtimes:
        if runtime == "onnx":
            tried += [
                Setting(runtime="onnx", precision=precision, threads=count)
                for precision in precisions
                for count in threads
            ]
        elif runtime == "tensorrt":
            tried += [
                Setting(runtime="tensorrt", precision=precision)
                for precision in precisions
                if precision != "int8"
            ]
    return sorted(tried, key=lambda setting: setting != PLAIN)
