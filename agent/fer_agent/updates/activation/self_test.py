"""The self-test of a model in a child process: loading, golden inputs, speed and memory."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fer_agent.errors import VerificationError
from fer_agent.system import child_process
from fer_agent.updates.activation.self_test_child import SelfTestReport, SelfTestTask

logger = logging.getLogger(__name__)


class SelfTestError(VerificationError):
    """A model did not pass its self-test; the message is the reason that is remembered."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, remedy="publish a better version; this one is not tried again")


@dataclass(frozen=True, slots=True)
class SelfTest:
    """The setting in which models run on this board, and the limits of a new one.

    Attributes:
        precision: the file of the model that runs.
        threads: threads inside one inference.
        limit_s: longest time for the whole self-test.
        memory_bytes: most private memory, in which Python and ONNX Runtime take some 150 MB.
        slowdown: how many times as much processor time as the current model it may take for one
            face.
    """

    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    threads: int = 1
    limit_s: float = 300.0
    memory_bytes: int = 512 << 20
    slowdown: float = 1.5

    def run(self, candidate: Path, current: Path | None) -> SelfTestReport:
        """Test a model beside the one that runs now.

        Args:
            candidate: folder of a verified version.
            current: folder of the version that runs now; None compares with nothing.

        Returns:
            The durations and the memory, for the log.

        Raises:
            SelfTestError: it does not load, does not agree with its golden inputs, is too slow or
                too large, does not end, or crashes.
        """
        task = SelfTestTask(
            candidate=candidate,
            current=current,
            precision=self.precision,
            threads=self.threads,
            memory_bytes=self.memory_bytes,
        )
        module = "fer_agent.updates.activation.self_test_child"
        try:
            report = child_process.ask(module, task, SelfTestReport, self.limit_s)
        except child_process.ChildError as error:
            raise SelfTestError(f"its self-test {error}") from None
        if report.refused:
            raise SelfTestError(report.refused)
        if report.candidate_ms is not None and report.current_ms is not None:
            ratio = report.candidate_ms / report.current_ms
            if ratio > self.slowdown:
                raise SelfTestError(
                    f"it takes {report.candidate_ms:.2f} ms of processor time a face, {ratio:.1f} "
                    f"times as long as the current model; the limit is {self.slowdown:g}"
                )
        logger.info("%s passed its self-test: %s", candidate.name, report.model_dump_json())
        return report
