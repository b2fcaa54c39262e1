"""The tracking metrics on cases worked out by hand, and the benchmark on a few scenes."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("scipy", reason="SciPy comes with the trainer extra")

import tracking
from track_metrics import TrackedFrame, track_figures

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FRAMES = 20
PLACES = {1: 0.0, 2: 300.0}


def boxes(lefts: Sequence[float]) -> np.ndarray:
    return np.array([[left, 0, left + 100, 100] for left in lefts]).reshape(-1, 4)


def frame(truth: Sequence[int], found: dict[int, float]) -> TrackedFrame:
    """Make a frame of the true persons, and of reported ids with the left edges of their boxes."""
    return TrackedFrame(
        np.array(truth, np.int64),
        boxes([PLACES[one] for one in truth]),
        np.array(list(found), np.int64),
        boxes(list(found.values())),
    )


def test_tracks_as_the_truth_score_one() -> None:
    frames = [frame([1, 2], {8: 300.0, 7: 0.0})] * FRAMES
    assert track_figures(frames) == (pytest.approx(1), pytest.approx(1), 0, 2 * FRAMES)


def test_an_id_that_changes_half_way_halves_the_association() -> None:
    frames = [frame([1], {7 if at < FRAMES / 2 else 8: 0.0}) for at in range(FRAMES)]
    assert track_figures(frames) == (pytest.approx(math.sqrt(1 / 2)), pytest.approx(0.5), 1, FRAMES)


def test_two_people_who_swap_ids_are_two_switches() -> None:
    """Each pair of person and id has half of 1.5 sequences in common."""
    swapped = [{7: 0.0, 8: 300.0}, {8: 0.0, 7: 300.0}]
    frames = [frame([1, 2], swapped[at >= FRAMES / 2]) for at in range(FRAMES)]
    hota, idf1, switches, _ = track_figures(frames)
    assert (hota, idf1, switches) == (pytest.approx(math.sqrt(1 / 3)), pytest.approx(0.5), 2)


def test_a_person_found_in_every_other_frame_is_no_switch() -> None:
    frames = [frame([1], {7: 0.0} if at % 2 else {}) for at in range(FRAMES)]
    assert track_figures(frames)[:3] == (pytest.approx(0.5), pytest.approx(2 / 3), 0)


def test_a_track_of_nobody_costs_detection_only() -> None:
    frames = [frame([1], {7: 0.0, 9: 600.0})] * FRAMES
    assert track_figures(frames)[:3] == (pytest.approx(math.sqrt(0.5)), pytest.approx(2 / 3), 0)


def test_boxes_that_overlap_by_three_fifths_count_up_to_there() -> None:
    """A quarter of the width aside is 0.75 over 1.25: found at 12 of HOTA's 19 overlaps."""
    frames = [frame([1], {7: 25.0})] * FRAMES
    assert track_figures(frames)[:3] == (pytest.approx(12 / 19), pytest.approx(1), 0)


def test_a_pair_goes_on_while_it_overlaps_even_if_another_box_fits_better() -> None:
    frames = [frame([1], {7: 0.0}), frame([1], {7: 20.0, 8: 5.0}), frame([1], {7: 0.0})]
    assert track_figures(frames).switches == 0


def test_nothing_reported_scores_nothing() -> None:
    assert track_figures([frame([1], {})] * FRAMES) == (0, 0, 0, FRAMES)


@pytest.mark.parametrize("make", tracking.SCENES, ids=lambda make: make.__name__)
@pytest.mark.parametrize("fps", [10.0, None])
def test_the_tracker_keeps_most_ids_of_simulated_scenes(
    make: tracking.NewMotion, fps: float | None
) -> None:
    ours, best, kept = tracking.simulated(make, fps, 4)
    assert 0.5 < ours.hota < best.hota < 1
    assert ours.switches < 0.05 * ours.faces
    assert 4 - ours.switches <= kept <= 4
    assert (kept == 4) == (ours.switches == 0)
    assert ours.faces == best.faces
    assert best.switches == 0


def test_a_hidden_face_is_neither_there_nor_found_and_one_in_ten_of_the_others_is_missed() -> None:
    random = np.random.default_rng(5)
    seen = list(tracking.looks(tracking.crossing(random), 1000.0, random))
    true = sum(len(look.true_ids) for look in seen)
    assert min(len(look.true_ids) for look in seen) == 1
    assert sum(len(look.owners) for look in seen) == pytest.approx(0.9 * true, rel=0.05)


def test_the_intervals_of_mixed_rates_are_those_of_1_to_30_frames_a_second() -> None:
    times = list(tracking.sample_times(300.0, None, np.random.default_rng(0)))
    intervals = np.diff(times)
    assert 1 / 30 <= intervals.min() < 0.04
    assert 0.9 < intervals.max() <= 1


def test_the_script_prints_a_row_for_each_scene_and_clip(root: Path, shared: Path) -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/tracking.py", "--scenes", "1", "--shared", shared],
        cwd=root, check=True, capture_output=True, text=True,
    )  # fmt: skip
    header, *rows = done.stdout.splitlines()
    assert " ".join(header.split()) == "scene fps HOTA best IDF1 best switches faces kept"
    assert len(rows) == 3 * 6 + 3 * 3
    clips = [row.split() for row in rows[18:]]
    assert [row[4] for row in clips] == ["0"] * 9  # as the tracker's own tests have it
