"""A self-test that passes everything, for tests about what comes before and after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_agent.updates.activation.self_test import SelfTest
from fer_agent.updates.activation.self_test_child import SelfTestReport

if TYPE_CHECKING:
    from pathlib import Path


class Untried(SelfTest):
    """Changes nothing on the disk, as a self-test does; a real one takes a second."""

    def run(self, candidate: Path, current: Path | None) -> SelfTestReport:
        return SelfTestReport()
