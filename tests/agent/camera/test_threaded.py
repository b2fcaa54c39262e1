from __future__ import annotations

import itertools
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scripted_source import ScriptedSource, Statuses, Step, open_fails, picture, read_fails

from fer_agent.camera import capture, threaded
from fer_agent.camera.threaded import ThreadedCamera
from fer_agent.errors import CameraError
from fer_agent.system.backoff import Backoff
from fer_agent.vision.records import Frame, Gap

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@pytest.fixture(autouse=True)
def _no_thread_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(capture, "FIRST_WAIT_S", 0.02)
    monkeypatch.setattr(capture, "LONGEST_WAIT_S", 0.1)
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
    assert set(threading.enumerate()) <= before


def camera(steps: Iterable[Step], **settings: Any) -> tuple[ThreadedCamera, Statuses]:
    statuses = Statuses()
    defaults = {"name": "front", "gap_s": 30, "live": True, "on_status": statuses}
    return ThreadedCamera(ScriptedSource(steps), **{**defaults, **settings}), statuses


def take(one: ThreadedCamera, count: int) -> list[Frame | Gap]:
    try:
        return list(itertools.islice(one.frames(), count))
    finally:
        one.close()


def test_a_file_ends_by_itself_with_every_frame_when_lossless() -> None:
    one, statuses = camera([*map(picture, range(30)), None], live=False, lossless=True)
    items = list(one.frames())
    assert [item.number for item in items if isinstance(item, Frame)] == list(range(1, 31))
    assert statuses.words() == ["online"]
    assert one.stats().captured == 30
    assert one.stats().dropped == 0
    assert one.turns >= 30
    one.close()


def test_a_slow_taker_gets_the_newest_frame_and_the_rest_is_counted() -> None:
    taken, gave_all = threading.Event(), threading.Event()
    steps = [picture(0), lambda: taken.wait(60) and None, *map(picture, range(1, 10)), gave_all.set]
    one, _ = camera(steps)
    frames = one.frames()
    next(frames)
    taken.set()
    assert gave_all.wait(60)
    newest = next(frames)
    one.close()
    assert isinstance(newest, Frame)
    assert newest.number == 10
    assert newest.luma[0, 0] == 9
    assert one.stats().dropped == 8


def test_4k_at_60_frames_a_second_is_taken_as_fast_as_the_taker_can() -> None:
    luma = np.zeros((2160, 3840), np.uint8)
    gave_all = threading.Event()
    steps = [Frame(luma, time.monotonic_ns(), 0) for _ in range(180)]
    one, _ = camera([*steps, gave_all.set])
    taken = 0
    for item in one.frames():
        assert isinstance(item, Frame)
        assert gave_all.wait(60)  # slower than the camera by far
        taken += 1
        if item.number == 180:
            break
    one.close()
    assert taken + one.stats().dropped == one.stats().captured == 180
    assert taken <= 3


def test_a_stuck_camera_disturbs_no_other() -> None:
    release = threading.Event()
    steps = [picture(), lambda: release.wait(60) and None]
    stuck, _ = camera(steps, name="stuck", gap_s=1, deadline_s=60)
    steady, statuses = camera([*map(picture, range(50)), None], live=False, lossless=True)
    frames = stuck.frames()
    next(item for item in frames if isinstance(item, Frame))
    assert len(list(steady.frames())) == 50
    assert statuses.words() == ["online"]
    assert isinstance(next(frames), Gap)
    release.set()
    steady.close()
    stuck.close()


def test_a_gap_comes_before_pictures_of_another_size() -> None:
    large = Frame(np.zeros((16, 8), np.uint8), 99, 0)
    steps = [picture(captured_ns=77), large, large, read_fails("gone"), picture(), None]
    one, _ = camera(steps, lossless=True, gap_s=60)
    items = take(one, 6)
    told = [item.size if isinstance(item, Frame) else item.captured_ns for item in items]
    assert told == [(8, 8), 77, (8, 16), (8, 16), 99, (8, 8)]


def test_frames_that_stay_away_are_one_gap_and_one_status() -> None:
    release = threading.Event()
    steps = [picture(captured_ns=77), lambda: release.wait(60) and None, picture()]
    one, statuses = camera(steps, gap_s=1, deadline_s=60)
    frames = one.frames()
    next(item for item in frames if isinstance(item, Frame))  # a busy machine may start slowly
    gap = next(frames)
    release.set()
    second = next(frames)
    one.close()
    assert isinstance(second, Frame)
    assert isinstance(gap, Gap)
    assert gap.captured_ns == 77
    assert statuses.words()[-3:] == [
        "online",
        "offline no pictures come from the camera",
        "online",
    ]


def test_a_fault_is_told_at_once_and_short_ones_cut_no_track() -> None:
    steps = [picture(), read_fails("unplugged"), open_fails("not there"), picture()]
    one, statuses = camera(steps, gap_s=30)
    items = take(one, 2)
    assert all(isinstance(item, Frame) for item in items)
    assert statuses.words()[0] == "online"
    assert statuses.words()[-2:] == ["offline not there", "online"]
    assert one.stats().reopened == 1


def test_numbers_go_on_rising_after_reopening() -> None:
    one, _ = camera([picture(), read_fails("a"), picture(), read_fails("b"), picture()], gap_s=30)
    numbers = []
    for item in one.frames():
        assert isinstance(item, Frame)
        numbers.append(item.number)
        if item.number == 3:
            break
    one.close()
    assert numbers == sorted(numbers)


def test_a_live_camera_that_was_never_there_is_offline_and_keeps_trying() -> None:
    one, statuses = camera([open_fails("no camera at /dev/video9")] * 4 + [picture()])
    next(item for item in one.frames() if isinstance(item, Frame))
    one.close()
    assert "offline no camera at /dev/video9" in statuses.words()
    assert statuses.words()[-1] == "online"


def test_the_log_says_what_to_do_and_says_it_once(caplog: pytest.LogCaptureFixture) -> None:
    one, _ = camera([open_fails("no camera at /dev/video9")] * 4 + [picture()])
    next(item for item in one.frames() if isinstance(item, Frame))
    one.close()
    assert caplog.messages.count("camera front is offline: no camera at /dev/video9; wait") == 1


def test_a_file_that_cannot_be_opened_raises() -> None:
    one, statuses = camera([open_fails("damaged")], live=False)
    with pytest.raises(CameraError, match="damaged"):
        list(one.frames())
    assert statuses.words() == ["offline damaged"]
    one.close()


def test_a_bug_in_a_source_reaches_whoever_takes_the_frames() -> None:
    one, _ = camera([picture(), ZeroDivisionError("oops")])
    with pytest.raises(ZeroDivisionError):
        list(one.frames())
    one.close()


def test_close_from_another_thread_ends_waiting_frames() -> None:
    one, _ = camera([])
    timer = threading.Timer(0.05, one.close)
    timer.start()
    assert all(isinstance(item, Gap) for item in one.frames())
    timer.join()
    one.close()
    assert list(one.frames()) == []


def test_close_before_the_first_frame_starts_nothing() -> None:
    one, _ = camera([picture()])
    one.close()
    assert list(one.frames()) == []


def test_the_thread_is_named_and_the_source_closed() -> None:
    names = []
    source = ScriptedSource(
        [lambda: names.append(threading.current_thread().name), picture(), None]
    )
    one = ThreadedCamera(source, name="door", gap_s=1, live=False, on_status=Statuses())
    list(one.frames())
    one.close()
    assert names == ["camera-door"]
    assert source.log == ["open", "close"]


def test_a_seam_comes_between_its_frames() -> None:
    one, _ = camera([picture(1), Gap(5, "seam"), picture(2), None], live=False, lossless=True)
    kinds = [type(item).__name__ for item in one.frames()]
    one.close()
    assert kinds == ["Frame", "Gap", "Frame"]


def test_a_quiet_camera_is_opened_again() -> None:
    source = ScriptedSource([picture()])
    one = ThreadedCamera(
        source, name="q", gap_s=0.05, live=True, on_status=Statuses(), deadline_s=0.1
    )
    assert any(isinstance(item, Gap) for item in one.frames())
    until_s = time.monotonic() + 60
    while one.stats().reopened < 2 and time.monotonic() < until_s:
        time.sleep(0.01)
    one.close()
    assert one.stats().reopened >= 2


def test_a_call_that_never_returns_is_left_behind() -> None:
    release = threading.Event()
    steps = [picture(1), lambda: release.wait(60) and None, picture(2), picture(3)]
    one, statuses = camera(steps, deadline_s=0.5, gap_s=0.1)
    frames = (item for item in one.frames() if isinstance(item, Frame))
    shades = [int(next(frames).luma[0, 0]) for _ in range(2)]
    release.set()
    one.close()
    assert shades[0] == 1
    assert shades[1] in (2, 3)
    assert any("does not return" in word for word in statuses.words())
    assert statuses.words()[-1] == "online"


def test_stuck_threads_do_not_pile_up() -> None:
    release = threading.Event()
    one, statuses = camera([lambda: release.wait(60) and None] * 50, deadline_s=0.05, gap_s=0.05)

    def end() -> None:
        statuses.wait_for("nor do those that replaced it", 60)
        one.close()

    ender = threading.Thread(target=end)
    ender.start()
    list(one.frames())
    stuck = [thread for thread in threading.enumerate() if thread.name == "camera-front"]
    release.set()
    ender.join()
    assert 1 < len(stuck) <= threaded.MAX_STUCK + 1
    assert any("nor do those that replaced it" in word for word in statuses.words())


def test_a_frozen_picture_is_a_fault_and_stays_offline_until_it_moves() -> None:
    statuses, shades = Statuses(), itertools.count()

    class Still(ScriptedSource):
        def read(self) -> Frame:
            time.sleep(0.005)
            return picture(next(shades) if len(statuses.seen) > 1 else 5)

    one = ThreadedCamera(Still([]), name="f", gap_s=30, live=True, on_status=statuses, frozen_s=0.1)
    for _ in one.frames():
        if len(statuses.seen) > 2:
            break
    one.close()
    assert statuses.words() == [
        "online",
        "offline the picture has not changed for 0.1 s",
        "online",
    ]


class ShiftedClock:
    """A monotonic clock of the camera's modules that a test moves on, instead of waiting."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s

    def monotonic_ns(self) -> int:
        return round(self.monotonic() * 1e9)

    def move_on(self, seconds: float) -> None:
        self.ahead_s += seconds


def test_waits_go_on_growing_until_pictures_came_for_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    longest_s: list[float] = []
    clock = ShiftedClock()

    class Noted(Backoff):
        def next_s(self, *, hopeless: bool = False) -> float:
            wait_s = super().next_s(hopeless=hopeless)
            longest_s.append(wait_s)
            return wait_s

    monkeypatch.setattr(capture, "Backoff", Noted)
    monkeypatch.setattr(capture, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(capture, "LONGEST_WAIT_S", 0.16)
    monkeypatch.setattr(capture, "time", clock)
    flaps = [picture(), picture(), read_fails("loose plug")] * 5
    minute = [picture(), partial(clock.move_on, 59), picture(), read_fails("loose plug")]
    more = [picture(), partial(clock.move_on, 61), picture(), read_fails("loose plug"), picture()]
    # Nothing is overdue for as long as the clock jumps.
    one, _ = camera([*flaps, *minute, *more], lossless=True, deadline_s=1000)
    take(one, 10 + 2 + 2 + 1)
    limits_s = [0.01, 0.02, 0.04, 0.08, 0.16, 0.16, 0.01]
    assert len(longest_s) == len(limits_s)
    for wait_s, limit_s in zip(longest_s, limits_s, strict=True):
        assert limit_s / 2 <= wait_s <= limit_s


def test_a_taker_that_works_for_longer_than_a_gap_is_no_fault_of_the_camera(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = ShiftedClock()
    monkeypatch.setattr(threaded, "time", clock)
    # The pause is longer than the camera waits for a picture at a time.
    pause = partial(time.sleep, 0.6)
    one, statuses = camera([picture(), pause, picture(), pause, picture()], gap_s=30)
    items = []
    for item in itertools.islice(one.frames(), 3):
        items.append(item)
        clock.move_on(100)
    one.close()
    assert all(isinstance(item, Frame) for item in items)
    assert statuses.words() == ["online"]
