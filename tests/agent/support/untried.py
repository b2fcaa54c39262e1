"""A trial that passes everything, for tests about what comes before and after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_agent.updates.activation.trial import Trial
from fer_agent.updates.activation.trial_child import Report

if TYPE_CHECKING:
    from pathlib import Path


class Untried(Trial):
    """Changes nothing on the disk, as a trial does; a real one takes a second."""

    def run(self, candidate: Path, current: Path | None) -> Report:
        return Report()
