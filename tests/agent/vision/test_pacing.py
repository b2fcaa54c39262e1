from __future__ import annotations

import logging
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fer_agent.system.board import BoardState
from fer_agent.vision.pacing import STEPS_FPS, Pace, PacedCamera, ThrottleWatch
from fer_agent.vision.records import CameraStats, Frame, Gap

if TYPE_CHECKING:
    from collections.abc import Iterator

COOL = BoardState(throttled=False, throttled_since_boot=False)
HOT = BoardState(
    throttled=True, throttled_since_boot=True, throttle_reasons=("soft temperature limit",)
)
COOLED = BoardState(throttled=False, throttled_since_boot=True)


class SteadyCamera:
    def __init__(self, items: list[Frame | Gap]) -> None:
        self._items = items

    def frames(self) -> Iterator[Frame | Gap]:
        yield from self._items

    def close(self) -> None:
        pass

    def stats(self) -> CameraStats:
        return CameraStats(captured=len(self._items), dropped=5, reopened=1)


def frame(at_s: float) -> Frame:
    return Frame(np.zeros((4, 4), np.uint8), round(at_s * 1e9), 0)


def paced(items: list[Frame | Gap], pace: Pace) -> PacedCamera:
    camera = SteadyCamera(items)
    return PacedCamera(camera, pace, camera.stats)


def clip(fps: float, seconds: float, jitter: float = 0.0) -> list[Frame | Gap]:
    random = np.random.default_rng(3)
    return [
        frame(100 + (n + jitter * random.uniform(-0.5, 0.5)) / fps)
        for n in range(round(fps * seconds))
    ]


def test_without_a_limit_every_frame_is_taken() -> None:
    items = [*clip(30, 1), Gap(0, "lost"), *clip(30, 1)]
    camera = paced(items, Pace())
    assert list(camera.frames()) == items
    assert camera.stats().dropped == 5


@pytest.mark.parametrize("fps", STEPS_FPS)
@pytest.mark.parametrize("camera_fps", [10.0, 15.0, 25.0, 30.0, 60.0])
@pytest.mark.parametrize("jitter", [0.0, 0.5])
def test_a_limit_is_kept_to_in_the_mean_and_300_ms_by_an_even_camera(
    fps: float, camera_fps: float, jitter: float
) -> None:
    pace = Pace()
    pace.limit(fps)
    camera = paced(clip(camera_fps, 60, jitter), pace)
    taken = [item.captured_ns for item in camera.frames()]
    assert len(taken) / 60 == pytest.approx(min(fps, camera_fps), rel=0.08)
    longest_s = 0.300 + 2 * jitter / camera_fps
    assert max(b - a for a, b in pairwise(taken)) / 1e9 <= longest_s
    assert camera.stats() == CameraStats(
        captured=round(camera_fps * 60), dropped=5 + round(camera_fps * 60) - len(taken), reopened=1
    )


def test_a_gap_is_never_left_out_and_the_frame_after_it_is_taken() -> None:
    pace = Pace()
    pace.limit(4.0)
    gap = Gap(0, "lost")
    items = [frame(100.0), frame(100.03), gap, frame(100.06), frame(100.1)]
    assert list(paced(items, pace).frames()) == [items[0], gap, items[3]]


def test_a_new_limit_counts_from_the_next_frame_on() -> None:
    pace = Pace()
    taken = []
    for number, _ in enumerate(paced(clip(30, 4), pace).frames()):
        taken.append(number)
        if number == 29:
            pace.limit(4.0)
    assert len(taken) == pytest.approx(30 + 3 * 4, abs=1)


class ScriptedBoard:
    """A board that tells what it is told to, and a clock."""

    def __init__(self) -> None:
        self.state = COOL
        self.now_s = 1000.0

    def read(self) -> BoardState:
        return self.state

    def clock_s(self) -> float:
        return self.now_s


@pytest.fixture
def board() -> ScriptedBoard:
    return ScriptedBoard()


def steps(watch: ThrottleWatch, pace: Pace, board: ScriptedBoard, seconds: int) -> list[float]:
    """Return each frame rate that was set while time went by; 0 is no limit."""
    seen: list[float] = []
    for _ in range(seconds):
        board.now_s += 1
        watch.tick()
        fps = round(1e9 / pace.interval_ns, 1) if pace.interval_ns else 0.0
        if not seen or seen[-1] != fps:
            seen.append(fps)
    return seen


def test_the_pace_goes_down_every_ten_seconds_and_up_every_minute(board: ScriptedBoard) -> None:
    pace = Pace()
    watch = ThrottleWatch(pace, board.read, board.clock_s)
    changes: list[float] = []
    for second in range(300):
        board.now_s = 1000.0 + second
        board.state = HOT if second < 30 else COOLED
        before_ns = pace.interval_ns
        watch.tick()
        if pace.interval_ns != before_ns:
            changes.append(second)
    assert changes == [0, 10, 20, 90, 150, 210]  # hot until 30


def test_a_board_that_throttles_goes_down_step_by_step_and_up_again_when_it_stays_cool(
    board: ScriptedBoard, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pace = Pace()
    watch = ThrottleWatch(pace, board.read, board.clock_s)
    assert steps(watch, pace, board, 60) == [0.0]
    board.state = HOT
    assert steps(watch, pace, board, 120) == [15.0, 8.0, 4.0]
    board.state = COOLED
    assert steps(watch, pace, board, 50) == [4.0]
    assert steps(watch, pace, board, 200) == [4.0, 8.0, 15.0, 0.0]
    said = [
        record.getMessage() for record in caplog.records if record.name == "fer_agent.vision.pacing"
    ]
    assert len(said) == 6
    assert "soft temperature limit" in said[0]
    assert "full speed" in said[-1]


def test_a_short_throttling_between_two_looks_counts_by_the_boards_own_memory(
    board: ScriptedBoard,
) -> None:
    pace = Pace()
    watch = ThrottleWatch(pace, board.read, board.clock_s)
    steps(watch, pace, board, 20)
    board.state = COOLED
    assert steps(watch, pace, board, 15)[-1] == 15.0


def test_counters_of_a_jetson_slow_it_down_while_they_rise(board: ScriptedBoard) -> None:
    pace = Pace()
    board.state = BoardState(throttle_events=3)
    watch = ThrottleWatch(pace, board.read, board.clock_s)
    assert steps(watch, pace, board, 60) == [0.0]
    board.state = BoardState(throttle_events=4)
    assert steps(watch, pace, board, 50) == [15.0]
    assert steps(watch, pace, board, 60) == [15.0, 0.0]


def test_a_board_that_does_not_tell_is_never_slowed_down(board: ScriptedBoard) -> None:
    pace = Pace()
    board.state = BoardState()
    watch = ThrottleWatch(pace, board.read, board.clock_s)
    assert steps(watch, pace, board, 300) == [0.0]
