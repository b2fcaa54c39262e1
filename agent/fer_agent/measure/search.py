"""`fer-agent models build`: try what may be fastest here, keep the fastest that computes right."""

from __future__ import annotations

import logging
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from pydantic import ValidationError

from fer_agent.errors import TemporaryError
from fer_agent.inference.setting import PLAIN, Setting
from fer_agent.measure import record
from fer_agent.measure.child import Task
from fer_agent.measure.fingerprint import of_this_board
from fer_agent.measure.record import Choice, Measurement, best
from fer_agent.system import durable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from fer_agent.models.manifest import Manifest
    from fer_agent.models.store import StoredModel

logger = logging.getLogger(__name__)

_LIMIT_S: dict[str, float] = {"onnx": 300.0, "tensorrt": 1800.0}
"""Longest trial on each runtime; TensorRT builds its engine within it, minutes on a small board."""

_LAST_WORDS = 300
"""Characters of a dead child's stderr that go into the reason."""


@dataclass(frozen=True, slots=True)
class Build:
    """How settings are tried.

    Attributes:
        runs: timed runs of each setting.
        limit: largest loss of accuracy against FP32, in [0, 1], where the manifest tells it.
        niceness: how far those who try stand back behind everything else on the board.
        within_s: longest time for all settings; what it leaves no room for is not tried.
        on_start: told each setting, its number and how many there are, before it is tried.
        on_end: told what was measured.
    """

    runs: int = 300
    limit: float = 0.01
    niceness: int = 0
    within_s: float = math.inf
    on_start: Callable[[Setting, int, int], None] = lambda _setting, _number, _count: None
    on_end: Callable[[Measurement], None] = lambda _measurement: None

    def run(self, model: StoredModel, store: Path, runtimes: Iterable[str]) -> Choice:
        """Measure every setting that makes sense and record the best.

        Until the last moment the old record stays; an interrupted build leaves nothing.

        Args:
            model: what is to run here.
            store: the model store.
            runtimes: names of those that are on this machine.

        Raises:
            ModelError: a file is not the manifest's, or no setting works.
            TemporaryError: another build of this model is under way, or the disk is full.
            ConfigError: the store cannot be written.
        """
        for file in model.manifest.files:
            model.verified_file(file.precision)
        lock = record.lock_of(store, model.manifest.name)
        try:
            with durable.locked(lock, wait=False) as held:
                if not held:
                    raise TemporaryError(
                        f"another build of {model.manifest.name} is under way in {store}",
                        remedy="wait until it has ended",
                    )
                choice = self._choose(model, store, runtimes)
                record.write(store, choice)
        except OSError as error:
            raise durable.refused(error, store) from error
        return choice

    def _choose(self, model: StoredModel, store: Path, runtimes: Iterable[str]) -> Choice:
        tried = settings(model.manifest, runtimes, len(os.sched_getaffinity(0)))
        ends_s = time.monotonic() + self.within_s
        measured = []
        for number, setting in enumerate(tried, start=1):
            self.on_start(setting, number, len(tried))
            measurement = self.attempt(model, store, setting, ends_s - time.monotonic())
            measured.append(self._judged(model.manifest, measurement))
            self.on_end(measured[-1])
        return Choice(
            model=model.manifest.name,
            version=model.manifest.version,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            fingerprint=of_this_board(model.manifest),
            limit=self.limit,
            setting=best(measured),
            measured=tuple(measured),
        )

    def _judged(self, manifest: Manifest, measurement: Measurement) -> Measurement:
        """Add the loss of accuracy that the manifest tells, and what it means."""
        have = manifest.file(measurement.setting.precision).validation_accuracy
        full = manifest.file("fp32").validation_accuracy
        if have is None or full is None:
            return measurement
        lost = round(full - have, 6)
        problem = measurement.problem
        if not problem and lost > self.limit:
            problem = f"loses {100 * lost:.2f} points of accuracy"
        return measurement.model_copy(update={"accuracy_lost": lost, "problem": problem})

    def attempt(
        self, model: StoredModel, store: Path, setting: Setting, left_s: float = math.inf
    ) -> Measurement:
        """Try one setting in a process of its own, for as long as is left at most."""
        if left_s <= 0.0:
            return Measurement(setting=setting, problem="not tried: no time was left")
        limit_s = min(left_s, _LIMIT_S[setting.runtime])
        task = Task(
            folder=model.folder,
            store=store,
            setting=setting,
            runs=self.runs,
            niceness=self.niceness,
        )
        try:
            done = subprocess.run(
                [sys.executable, "-m", "fer_agent.measure.child"],
                input=task.model_dump_json(),
                capture_output=True,
                text=True,
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            problem = f"did not end within {limit_s:.0f} s"
            return Measurement(setting=setting, problem=problem)
        if done.returncode < 0:
            problem = f"crashed with {signal.Signals(-done.returncode).name}"
            return Measurement(setting=setting, problem=problem)
        try:
            return Measurement.model_validate_json(done.stdout)
        except ValidationError:
            last = done.stderr.strip()[-_LAST_WORDS:].splitlines()[-1:] or ["no message"]
            problem = f"ended with {done.returncode}: {last[0]}"
            return Measurement(setting=setting, problem=problem)


def settings(manifest: Manifest, runtimes: Iterable[str], cores: int) -> list[Setting]:
    """List what may be fastest: each file, on 1, 2, 4 ... threads up to the number of cores.

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
