from __future__ import annotations

import cv2
import numpy as np
import pytest

from fer_agent.vision.crop import CROP_MARGIN, crop_faces

SIZE = (48, 48)


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([[left, top, right, bottom]], np.float32)


def ramp(height: int = 240, width: int = 240) -> np.ndarray:
    """A picture whose value is its column."""
    return np.repeat(np.arange(width, dtype=np.uint8)[np.newaxis], height, axis=0)


def test_no_faces_give_no_crops() -> None:
    crops = crop_faces(ramp(), np.empty((0, 4), np.float32), SIZE)
    assert crops.shape == (0, 1, 48, 48)
    assert crops.dtype == np.uint8


def test_a_crop_is_a_square_around_the_boxs_centre() -> None:
    # 80 wide and 125 high: the geometric mean is 100.
    (crop,) = crop_faces(ramp(), box(80, 50, 160, 175), SIZE)
    side = 100 * CROP_MARGIN
    assert crop.shape == (1, 48, 48)
    assert crop.mean() == pytest.approx(119.5, abs=1)
    assert float(crop[0, 0, -1]) - float(crop[0, 0, 0]) == pytest.approx(side * 47 / 48, abs=2)
    assert np.ptp(crop[0].astype(int), axis=0).max() <= 1  # columns stay columns


def test_the_picture_may_be_of_any_size_and_the_crop_too() -> None:
    crops = crop_faces(ramp(100, 120), np.repeat(box(30, 30, 70, 80), 3, axis=0), (64, 64))
    assert crops.shape == (3, 1, 64, 64)
    assert (crops[0] == crops[2]).all()


def test_edges_are_repeated_outside_the_picture() -> None:
    (crop,) = crop_faces(ramp(), box(-50, 100, 50, 200), SIZE)
    left = crop[0, :, :23]
    assert (left == 0).all()
    assert crop[0, 0, -1] > 40


@pytest.mark.parametrize("centre", [(10, 120), (230, 120), (120, 10), (120, 230), (5, 235)])
def test_a_crop_over_an_edge_is_that_of_a_picture_continued_by_its_edge_pixels(
    centre: tuple[int, int],
) -> None:
    luma = np.random.default_rng(0).integers(0, 256, (240, 240)).astype(np.uint8)
    wide = cv2.copyMakeBorder(luma, 100, 100, 100, 100, cv2.BORDER_REPLICATE)
    x, y = centre
    crop = crop_faces(luma, box(x - 25, y - 30, x + 25, y + 30), SIZE)
    assert (crop == crop_faces(wide, box(x + 75, y + 70, x + 125, y + 130), SIZE)).all()


@pytest.mark.parametrize(
    ("outside", "value"),
    [((-500, 50, -400, 150), 0), ((600, 50, 700, 150), 239), ((600, 900, 700, 950), 239)],
)
def test_a_box_outside_the_picture_gives_its_nearest_edge(
    outside: tuple[float, float, float, float], value: int
) -> None:
    assert (crop_faces(ramp(), box(*outside), SIZE) == value).all()


def test_shrinking_averages_so_that_noise_goes() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (960, 960)).astype(np.uint8)
    (crop,) = crop_faces(noise, box(100, 100, 820, 820), SIZE)
    assert crop.std() < 8  # 74 before


def test_enlarging_is_smooth() -> None:
    checks = (np.indices((20, 20)).sum(axis=0) % 2 * 255).astype(np.uint8)
    (crop,) = crop_faces(checks, box(5, 5, 15, 15), SIZE)
    assert len(np.unique(crop)) > 20


@pytest.mark.parametrize("flat", [(10, 10, 10, 10), (10, 10, 90, 10), (90, 90, 10, 10)])
def test_a_box_without_area_gives_one_pixel_enlarged(
    flat: tuple[float, float, float, float],
) -> None:
    assert len(np.unique(crop_faces(ramp(), box(*flat), SIZE))) == 1


def test_a_huge_box_is_limited() -> None:
    (crop,) = crop_faces(ramp(), box(-1e6, -1e6, 1e6, 1e6), SIZE)
    assert crop.shape == (1, 48, 48)


def test_a_picture_of_one_pixel() -> None:
    crops = crop_faces(np.full((1, 1), 77, np.uint8), box(0, 0, 1, 1), SIZE)
    assert (crops == 77).all()


def test_the_picture_is_not_modified_and_may_be_read_only() -> None:
    luma = ramp()
    luma.flags.writeable = False
    assert crop_faces(luma, box(-10, -10, 90, 90), SIZE).flags.writeable


def test_a_crop_of_a_view_equals_the_crop_of_a_copy() -> None:
    planes = cv2.merge([ramp(), ramp()])
    view = planes[:, :, 1]
    assert (
        crop_faces(view, box(20, 20, 90, 99), SIZE)
        == crop_faces(view.copy(), box(20, 20, 90, 99), SIZE)
    ).all()


@pytest.mark.parametrize("side", [60, 94, 100, 190, 380])
def test_a_crop_is_nearly_that_of_area_averaging(side: int) -> None:
    smooth = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 256, (480, 480)).astype(np.uint8), (0, 0), 6
    )
    smooth = cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX)
    edge = side / CROP_MARGIN
    (crop,) = crop_faces(
        smooth, box(240 - edge / 2, 240 - edge / 2, 240 + edge / 2, 240 + edge / 2), SIZE
    )
    start = 240 - side // 2
    area = cv2.resize(
        smooth[start : start + side, start : start + side], SIZE, interpolation=cv2.INTER_AREA
    )
    assert np.abs(crop[0].astype(int) - area).mean() < 2
