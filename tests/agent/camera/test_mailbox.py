from __future__ import annotations

import threading
import time

import pytest
from scripted_source import picture

from fer_agent.camera.mailbox import Closed, Mailbox
from fer_agent.vision.records import CameraState, CameraStatus, Frame, Gap


def test_only_the_newest_frame_is_kept_and_the_others_counted() -> None:
    box = Mailbox(lossless=False)
    for shade in range(5):
        box.put(picture(shade))
    item = box.take(0)
    assert isinstance(item, Frame)
    assert item.luma[0, 0] == 4
    assert box.dropped == 4
    assert box.take(0) is None


def test_a_gap_stays_before_the_frames_that_follow_it() -> None:
    box = Mailbox(lossless=False)
    for _ in range(3):
        box.put(picture())
        box.put(Gap(0, "seam"))
    box.put(CameraStatus(CameraState.OFFLINE, "gone"))
    box.put(picture(9))
    kinds = [type(box.take(0)).__name__ for _ in range(4)]
    assert kinds == ["Gap", "CameraStatus", "Frame", "NoneType"]
    assert box.dropped == 3  # frames; the gaps that were replaced do not count


def test_lossless_waits_for_the_taker() -> None:
    box = Mailbox(lossless=True)

    def produce() -> None:
        for shade in range(50):
            box.put(picture(shade))
        box.finish()

    thread = threading.Thread(target=produce)
    thread.start()
    shades = []
    for _ in range(50):
        item = box.take(5)
        assert isinstance(item, Frame)
        shades.append(int(item.luma[0, 0]))
    thread.join()
    with pytest.raises(Closed):
        box.take(5)
    assert shades == list(range(50))
    assert box.dropped == 0


def test_what_was_put_before_the_end_still_comes_out() -> None:
    box = Mailbox(lossless=False)
    box.put(picture())
    box.finish(ValueError("broken"))
    assert isinstance(box.take(0), Frame)
    with pytest.raises(ValueError, match="broken"):
        box.take(0)
    with pytest.raises(Closed):
        box.take(0)


def test_close_releases_a_waiting_producer_and_throws_away() -> None:
    box = Mailbox(lossless=True)
    box.put(picture())
    thread = threading.Thread(target=box.put, args=(picture(),))
    thread.start()
    box.close()
    thread.join(5)
    assert not thread.is_alive()
    with pytest.raises(Closed):
        box.take(0)


def test_the_end_releases_a_waiting_taker() -> None:
    box = Mailbox(lossless=False)
    timer = threading.Timer(0.2, box.finish)
    timer.start()
    started_s = time.monotonic()
    with pytest.raises(Closed):
        box.take(60)
    timer.join()
    assert time.monotonic() - started_s < 60
