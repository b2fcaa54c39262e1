"""The tracker, which gives faces stable ids, after SORT.

A track is a Kalman filter of constant velocity, and each frame's faces go to the tracks whose
predicted boxes fit them best (Bewley et al., 2016, doi:10.1109/ICIP.2016.7533003). Three things
differ, because frames come irregularly and as rarely as once a second: the filter computes in
seconds, velocity fades while a face is unseen, and a face may continue a track that its box no
longer overlaps, within a reach that grows with the time since the last sight.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from fer_agent.config.model import TrackerConfig
from fer_agent.vision.assignment import assign
from fer_agent.vision.records import Faces, Tracks

Floats = list[float]

KEPT_FRAMES = 3
"""A track survives at least this many frames without its face."""

# Lengths below are in face sizes: the square root of a box's area.

_BOX_NOISE = 0.03
"""Standard deviation of a found box's centre, and of the logarithm of its width and height.
note: YuNet at 320 pixels on a person sitting still gives 0.01; a turning head up to 0.04."""

_START_SPEED = 3.0
"""Standard deviation of a new face's velocity, in sizes per second."""

_JOLT = 2.0
"""Random acceleration, in sizes per second to the power of 3/2 (white-noise acceleration).
note: of simulated crossings at 5 to 30 frames a second 96 % kept both ids with 2 and with 1."""

_FADE_S = 1.0
"""Time constant with which velocity fades between sights.
note: of the same crossings 94 % kept both ids with 0.5, 96 to 99 % with 1, 2 and 5."""

_REACH = 0.5
_REACH_PER_S = 4.0
_MAX_REACH = 2.0
"""A face continues a track up to `_REACH` from its predicted or last centre, and farther by
`_REACH_PER_S` for each second since the last sight, up to `_MAX_REACH`."""

_MAX_GROWTH = math.log(2.0)
"""A face of twice or half the predicted size belongs to another person."""

_DISTANCE_COST = 0.5
"""Cost of one face size between the centres, where no overlap at all costs 1."""

_ALONE_COST = 2.5
"""Price of leaving a track without a face: more than the poorest pair allowed, which costs 2."""

_SAME_FACE = 0.7
"""A new face that shares this much of the smaller box with a tracked one is the same face twice."""


@dataclass(slots=True)
class _Track:
    """One face over time.

    Attributes:
        mean: centre x and y in pixels, logarithms of width and height.
        velocity: change of `mean` per second, four numbers.
        covariance: variance of position, covariance with velocity, variance of velocity, in face
            sizes; one for all four.
        at_ns: time that `mean` stands for.
        seen_ns: time of the last sight.
        seen_at: centre of the last sight in pixels.
        hits: frames in which the face was found.
        missed: frames since the last sight.
        track_id: 0 until confirmed.
    """

    mean: Floats
    velocity: Floats
    covariance: tuple[float, float, float]
    at_ns: int
    seen_ns: int
    seen_at: Floats
    hits: int = 1
    missed: int = 0
    track_id: int = 0

    @classmethod
    def start(cls, measured: Floats, captured_ns: int) -> _Track:
        return cls(
            measured,
            [0.0] * 4,
            (_BOX_NOISE**2, 0.0, _START_SPEED**2),
            at_ns=captured_ns,
            seen_ns=captured_ns,
            seen_at=measured[:2],
        )

    def predict(self, captured_ns: int) -> None:
        """Move the track to the time of a frame."""
        step_s = max(0, captured_ns - self.at_ns) / 1e9
        self.at_ns = captured_ns
        kept = math.exp(-step_s / _FADE_S)
        travel_s = _FADE_S * (1.0 - kept)
        self.mean = [
            at + travel_s * speed for at, speed in zip(self.mean, self.velocity, strict=True)
        ]
        self.velocity = [kept * speed for speed in self.velocity]
        place, both, speed = self.covariance
        self.covariance = (
            place + 2 * travel_s * both + travel_s**2 * speed + _JOLT**2 * step_s**3 / 3,
            kept * (both + travel_s * speed) + _JOLT**2 * step_s**2 / 2,
            kept**2 * speed + _JOLT**2 * step_s,
        )

    def correct(self, measured: Floats, captured_ns: int) -> None:
        """Take in the face found in the frame just predicted."""
        place, both, speed = self.covariance
        place_gain = place / (place + _BOX_NOISE**2)
        speed_gain = both / (place + _BOX_NOISE**2)
        error = [found - at for found, at in zip(measured, self.mean, strict=True)]
        self.mean = [at + place_gain * off for at, off in zip(self.mean, error, strict=True)]
        self.velocity = [
            at + speed_gain * off for at, off in zip(self.velocity, error, strict=True)
        ]
        self.covariance = (
            place - place_gain * place,
            both - place_gain * both,
            speed - speed_gain * both,
        )
        self.seen_ns = captured_ns
        self.seen_at = measured[:2]
        self.hits += 1
        self.missed = 0

    def reach(self) -> float:
        """Return how far from its centre a face may continue the track, in face sizes."""
        unseen_s = (self.at_ns - self.seen_ns) / 1e9
        return min(_REACH + _REACH_PER_S * unseen_s, _MAX_REACH)

    def box(self) -> Floats:
        """Return the predicted box, left, top, right, bottom."""
        x, y, log_width, log_height = self.mean
        half_width, half_height = math.exp(log_width) / 2, math.exp(log_height) / 2
        return [x - half_width, y - half_height, x + half_width, y + half_height]


class IouTracker:
    """Tracker of faces by box overlap and distance; satisfies `ports.FaceTracker`.

    Args:
        config: thresholds for confirming, matching and ending tracks.
    """

    def __init__(self, config: TrackerConfig) -> None:
        self._config = config
        self._tracks: list[_Track] = []
        self._last_id = 0

    def update(self, faces: Faces, captured_ns: int) -> Tracks:
        """Match one frame's faces with the tracks known so far.

        Args:
            faces: the frame's faces; N may be 0.
            captured_ns: monotonic time of the frame, not before the last one's.

        Returns:
            The confirmed tracks whose faces are in this frame, with the boxes as they were found,
            lowest id first. Ids rise from 1 in the order of confirmation and are never reused.
            `ended` holds the confirmed tracks that end now: not seen for more than
            `max_missed_s` and more than three frames.
        """
        if not self._tracks and not len(faces):
            return _no_tracks(faces.frame_size)
        boxes: list[Floats] = faces.xyxy.tolist()
        measured = [_measure(box) for box in boxes]
        for track in self._tracks:
            track.predict(captured_ns)
            track.missed += 1

        pairs = assign(self._costs(boxes, measured), limit=_ALONE_COST)
        seen = [(self._tracks[row], face) for row, face in pairs]
        for track, face in seen:
            track.correct(measured[face], captured_ns)
        for face in _new_faces(boxes, taken=[face for _, face in seen]):
            seen.append((_Track.start(measured[face], captured_ns), face))
            self._tracks.append(seen[-1][0])

        ended = self._remove_dead(captured_ns)
        for track, _ in sorted(seen, key=lambda sight: sight[1]):
            if not track.track_id and track.hits >= self._config.confirm_frames:
                self._last_id += 1
                track.track_id = self._last_id
        return _to_tracks(faces, seen, ended)

    def reset(self) -> None:
        """Forget all tracks; ids go on rising."""
        self._tracks.clear()

    def _costs(self, boxes: list[Floats], measured: list[Floats]) -> list[Floats]:
        """Return the cost of every track with every face, T rows of N; infinite if impossible."""
        faces = list(zip(boxes, measured, strict=True))
        rows = []
        for track in self._tracks:
            predicted = track.box()
            log_size = (track.mean[2] + track.mean[3]) / 2
            size, reach = math.exp(log_size), track.reach()
            row = []
            for box, (x, y, log_width, log_height) in faces:
                overlap = 0.0
                if box[0] < predicted[2] and predicted[0] < box[2]:
                    overlap, _ = _overlap(predicted, box)
                distance = math.hypot(track.mean[0] - x, track.mean[1] - y) / size
                # A head that turned back is nearer to where it was seen than to where it was going.
                strayed = math.hypot(track.seen_at[0] - x, track.seen_at[1] - y) / size
                growth = abs(log_size - (log_width + log_height) / 2)
                near = min(distance, strayed) <= reach and growth <= _MAX_GROWTH
                possible = near or overlap >= self._config.min_iou
                row.append(
                    1.0 - overlap + _DISTANCE_COST * min(distance, _MAX_REACH)
                    if possible
                    else math.inf
                )
            rows.append(row)
        return rows

    def _remove_dead(self, captured_ns: int) -> tuple[int, ...]:
        """Drop tracks unseen for too long, unconfirmed ones at once; return the confirmed ids."""
        limit_ns = self._config.max_missed_s * 1e9
        kept, ended = [], []
        for track in self._tracks:
            recent = track.missed <= KEPT_FRAMES or captured_ns - track.seen_ns <= limit_ns
            if track.missed == 0 or (track.track_id and recent):
                kept.append(track)
            elif track.track_id:
                ended.append(track.track_id)
        self._tracks = kept
        return tuple(sorted(ended))


def _measure(box: Floats) -> Floats:
    """Turn a box into centre x, centre y, log width, log height; at least a pixel wide."""
    left, top, right, bottom = box
    width, height = max(right - left, 1.0), max(bottom - top, 1.0)
    return [(left + right) / 2, (top + bottom) / 2, math.log(width), math.log(height)]


def _overlap(ours: Floats, theirs: Floats) -> tuple[float, float]:
    """Return two boxes' intersection over union, and over the smaller box."""
    left, top, right, bottom = ours
    their_left, their_top, their_right, their_bottom = theirs
    shared_width = min(right, their_right) - max(left, their_left)
    shared_height = min(bottom, their_bottom) - max(top, their_top)
    shared = max(shared_width, 0.0) * max(shared_height, 0.0)
    area = max(right - left, 1.0) * max(bottom - top, 1.0)
    their_area = max(their_right - their_left, 1.0) * max(their_bottom - their_top, 1.0)
    return shared / (area + their_area - shared), shared / min(area, their_area)


def _new_faces(boxes: list[Floats], taken: list[int]) -> list[int]:
    """List the faces that start a track: not `taken`, and not one face in two boxes."""
    new: list[int] = []
    for face, box in enumerate(boxes):
        if face not in taken and not any(
            _overlap(box, boxes[other])[1] >= _SAME_FACE for other in taken + new
        ):
            new.append(face)
    return new


def _to_tracks(faces: Faces, seen: list[tuple[_Track, int]], ended: tuple[int, ...]) -> Tracks:
    """Make the record of the confirmed tracks among those seen."""
    confirmed = sorted((track.track_id, face) for track, face in seen if track.track_id)
    if not confirmed and not ended:
        return _no_tracks(faces.frame_size)
    rows = [face for _, face in confirmed]
    track_id = np.array([track_id for track_id, _ in confirmed], np.int64)
    if rows == list(range(len(faces))):
        return Tracks(track_id, faces.xyxy, faces.score, faces.landmarks, faces.frame_size, ended)
    return Tracks(
        track_id=track_id,
        xyxy=faces.xyxy[rows],
        score=faces.score[rows],
        landmarks=faces.landmarks[rows],
        frame_size=faces.frame_size,
        ended=ended,
    )


@functools.lru_cache(maxsize=8)
def _no_tracks(frame_size: tuple[int, int]) -> Tracks:
    """Make the record of a frame without tracks, the same one for all frames of a size."""
    none = Faces.none(frame_size)
    return Tracks(np.empty(0, np.int64), none.xyxy, none.score, none.landmarks, frame_size)
