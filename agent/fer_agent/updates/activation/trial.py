"""The trial: a model must load, agree with its golden inputs and be fast, in a child process."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from fer_agent.errors import VerificationError
from fer_agent.updates.activation.trial_child import Report, Task

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

_LAST_WORDS = 300
"""Characters of a dead child's stderr that go into the reason."""


class TrialError(VerificationError):
    """A model did not pass its trial; its message is the reason that is remembered."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, remedy="publish a better version; this one is not tried again")


@dataclass(frozen=True, slots=True)
class Trial:
    """How models run on this board, and what a new one has to keep to.

    Attributes:
        precision: which of the model's files runs.
        threads: threads inside one inference.
        limit_s: longest time for the whole trial.
        memory_bytes: most private memory, in which Python and ONNX Runtime take some 150 MB.
        slowdown: how many times as much processor time as the current model it may take for one
            face.
    """

    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    threads: int = 1
    limit_s: float = 300.0
    memory_bytes: int = 512 << 20
    slowdown: float = 1.5

    def run(self, candidate: Path, current: Path | None) -> Report:
        """Try a model beside the one that runs now.

        Args:
            candidate: folder of a verified version.
            current: folder of the version that runs now; None compares with nothing.

        Returns:
            The durations and the memory, for the log.

        Raises:
            TrialError: it does not load, does not agree with its golden inputs, is too slow or
                too large, does not end, or takes the process down.
        """
        task = Task(
            candidate=candidate,
            current=current,
            precision=self.precision,
            threads=self.threads,
            memory_bytes=self.memory_bytes,
        )
        report = self._in_child(task)
        if report.refused:
            raise TrialError(report.refused)
        if report.candidate_ms is not None and report.current_ms is not None:
            ratio = report.candidate_ms / report.current_ms
            if ratio > self.slowdown:
                raise TrialError(
                    f"it takes {report.candidate_ms:.2f} ms of processor time a face, {ratio:.1f} "
                    f"times as long as the current model; the limit is {self.slowdown:g}"
                )
        logger.info("%s passed its trial: %s", candidate.name, report.model_dump_json())
        return report

    def _in_child(self, task: Task) -> Report:
        command = [sys.executable, "-m", "fer_agent.updates.activation.trial_child"]
        try:
            done = subprocess.run(  # noqa: S603  our own module
                command,
                input=task.model_dump_json(),
                capture_output=True,
                text=True,
                timeout=self.limit_s,
                check=False,
                env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
            )
        except subprocess.TimeoutExpired:
            raise TrialError(f"its trial did not end within {self.limit_s:g} s") from None
        if done.returncode < 0:
            name = signal.Signals(-done.returncode).name
            raise TrialError(f"it took the trial's process down with {name}")
        try:
            return Report.model_validate_json(done.stdout)
        except ValidationError:
            last = done.stderr.strip()[-_LAST_WORDS:].splitlines()[-1:] or ["no message"]
            raise TrialError(f"its trial ended with {done.returncode}: {last[0]}") from None
