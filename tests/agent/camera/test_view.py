from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scripted_source import ScriptedSource, Statuses

from fer_agent.camera.threaded import ThreadedCamera
from fer_agent.camera.view import CameraView, OriginalCoordinates, ViewedCamera
from fer_agent.config.model import CameraConfig
from fer_agent.vision.records import EmotionEvent, EventKind, Frame, Gap, ModelIdentity

if TYPE_CHECKING:
    from fer_agent.vision.records import Bgr, Float32Array

WIDTH, HEIGHT = 80, 60
BOX = (30, 20, 41, 27)
"""Left, top, right, bottom of the bright block in the original picture."""


def block_picture() -> Frame:
    bgr = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    bgr[BOX[1] : BOX[3], BOX[0] : BOX[2]] = (50, 150, 250)
    luma = bgr[:, :, 1].copy()
    return Frame(luma, 1, 1, lambda: bgr)


def found(image: Bgr) -> Float32Array:
    rows, columns = np.nonzero(image)[:2]
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    return np.array(box, np.float32)


@pytest.mark.parametrize(
    ("rotate", "flip", "roi"),
    list(
        itertools.product(
            (0, 90, 180, 270),
            ("none", "horizontal", "vertical"),
            ((0.0, 0.0, 1.0, 1.0), (0.25, 0.1, 0.75, 0.9)),
        )
    ),
)
def test_boxes_come_back_to_where_they_are_in_the_original(
    rotate: Any, flip: Any, roi: tuple[float, float, float, float]
) -> None:
    view = CameraView(rotate, flip, roi)
    seen = view.apply(block_picture())
    boxes = np.stack([found(seen.luma), found(seen.bgr())])
    assert view.to_original(boxes, (WIDTH, HEIGHT)).tolist() == [list(BOX)] * 2


def test_quarter_turn_is_clockwise() -> None:
    frame = Frame(np.array([[1, 2], [3, 4]], np.uint8), 1, 1)
    assert CameraView(rotate=90).apply(frame).luma.tolist() == [[3, 1], [4, 2]]
    assert CameraView(flip="horizontal").apply(frame).luma.tolist() == [[2, 1], [4, 3]]
    assert CameraView(flip="vertical").apply(frame).luma.tolist() == [[3, 4], [1, 2]]


def test_turned_luma_is_contiguous_and_time_stays() -> None:
    seen = CameraView(rotate=90).apply(block_picture())
    assert seen.luma.flags.c_contiguous
    assert seen.size == (HEIGHT, WIDTH)
    assert (seen.captured_ns, seen.number) == (1, 1)


def test_a_region_smaller_than_a_pixel_is_one_pixel() -> None:
    view = CameraView(roi=(0.999, 0.0, 1.0, 0.001))
    assert view.apply(block_picture()).size == (1, 1)


def test_gray_sources_stay_gray() -> None:
    frame = Frame(np.zeros((4, 6), np.uint8), 1, 1)
    assert CameraView(rotate=90).apply(frame).bgr().shape == (6, 4, 3)


def test_configuration_makes_a_view_only_where_it_changes_something() -> None:
    assert CameraView.of(CameraConfig(source="0")) is None
    view = CameraView.of(CameraConfig(source="0", rotate=180, roi=[0.0, 0.5, 1.0, 1.0]))
    assert view == CameraView(180, "none", (0.0, 0.5, 1.0, 1.0))


@pytest.mark.parametrize("roi", [[0.5, 0.0, 0.5, 1.0], [0.0, 0.0, 1.5, 1.0], [0.0, 0.0, 1.0]])
def test_a_region_outside_the_picture_is_refused(roi: list[float]) -> None:
    with pytest.raises(ValueError, match="roi"):
        CameraConfig(source="0", roi=roi)


def test_events_speak_of_the_original_picture() -> None:
    view = CameraView(rotate=90)
    threaded = ThreadedCamera(
        ScriptedSource([block_picture(), Gap(1, "seam"), None]),
        name="up",
        gap_s=1,
        live=False,
        lossless=True,
        on_status=Statuses(),
    )
    camera = ViewedCamera(threaded, view)
    items = list(camera.frames())
    camera.close()
    assert [type(item).__name__ for item in items] == ["Frame", "Gap"]
    assert isinstance(items[0], Frame)
    told: list[EmotionEvent] = []

    class EventList:
        def publish(self, event: EmotionEvent) -> None:
            told.append(event)

    event = EmotionEvent(
        kind=EventKind.STARTED,
        track_id=1,
        captured_ns=1,
        emotion="happy",
        confidence=1.0,
        labels=("happy",),
        probs=np.ones(1, np.float32),
        xyxy=found(items[0].luma),
        frame_size=items[0].size,
        started_ns=1,
        model=ModelIdentity("net", "0" * 64),
    )
    OriginalCoordinates(EventList(), camera, view).publish(event)
    assert told[0].xyxy.tolist() == list(BOX)
    assert told[0].frame_size == (WIDTH, HEIGHT)
