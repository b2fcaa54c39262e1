"""The health message of a board that throttles itself, whoever reports it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from fer_agent.app.health import HealthReporter
from fer_agent.mqtt.messages import uuid7
from fer_agent.vision.pacing import STEPS_FPS, Pace, ThrottleWatch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def firmware(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A function that sets the answer of a Raspberry Pi's firmware to `vcgencmd get_throttled`."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program = tmp_path / "vcgencmd"

    def answer(flags: str) -> None:
        program.write_text(
            f'#!/bin/sh\ncase "$1" in\nget_throttled) echo throttled={flags};;\n'
            'measure_temp) echo "temp=82.1\'C";;\nesac\n'
        )
        program.chmod(0o755)

    return answer


def reporter() -> HealthReporter:
    return HealthReporter([], session=uuid7(), interval_s=60.0, publisher=None)


def test_health_and_pacing_agree_where_only_the_firmware_knows(
    firmware: Callable[[str], None],
) -> None:
    firmware("0x50005")
    pace = Pace()
    ThrottleWatch(pace).tick()
    assert pace.interval_ns == round(1e9 / STEPS_FPS[0])
    payload = reporter().measure()
    assert payload.throttled is True
    assert payload.temperature_c is not None


def test_throttling_between_two_reports_is_in_the_second(firmware: Callable[[str], None]) -> None:
    firmware("0x0")
    health = reporter()
    assert health.measure().throttled is False
    firmware("0x40000")  # throttled since the boot, and over by now
    assert health.measure().throttled is True
    assert health.measure().throttled is False, "no news since the report before"
