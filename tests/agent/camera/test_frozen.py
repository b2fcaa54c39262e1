from __future__ import annotations

import time

import numpy as np
import pytest
from scripted_source import picture

from fer_agent.camera.frozen import FrozenPicture
from fer_agent.errors import CameraError


class SetClock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    fake = SetClock()
    monkeypatch.setattr(time, "monotonic", fake)
    return fake


@pytest.mark.parametrize("limit_s", [0.5, 10.0])
def test_a_picture_that_stays_longer_than_the_limit_is_a_fault(
    clock: SetClock, limit_s: float
) -> None:
    frozen = FrozenPicture(limit_s)
    for _ in range(3):
        assert not frozen.withholds(picture(7))
        clock.now_s += limit_s / 2
    with pytest.raises(CameraError, match=f"has not changed for {limit_s:g} s"):
        frozen.withholds(picture(7))


def test_a_picture_that_was_found_frozen_is_withheld_until_it_changes(clock: SetClock) -> None:
    frozen = FrozenPicture(10.0)
    frozen.withholds(picture(7))
    for _ in range(3):  # opened again, and it still shows the same
        clock.now_s += 10.5
        with pytest.raises(CameraError):
            frozen.withholds(picture(7))
        assert frozen.withholds(picture(7))
    assert not frozen.withholds(picture(8))
    clock.now_s += 9.5
    assert not frozen.withholds(picture(8))


def test_one_changed_pixel_of_a_small_picture_is_a_change(clock: SetClock) -> None:
    for row, column in np.ndindex(8, 8):
        frozen = FrozenPicture(10.0)
        frozen.withholds(picture(7))
        clock.now_s += 10.5
        changed = picture(7)
        changed.luma[row, column] = 8
        assert not frozen.withholds(changed)


def test_without_a_limit_a_picture_may_stand_still(clock: SetClock) -> None:
    frozen = FrozenPicture(0.0)
    for _ in range(3):
        assert not frozen.withholds(picture(7))
        clock.now_s += 1e6
