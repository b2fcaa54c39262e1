"""The records that packages exchange; array shapes are validated in `__post_init__`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # pydantic stays out of a process that measures one network
    from fer_agent.models.manifest import Manifest, ModelFile

Luma: TypeAlias = NDArray[np.uint8]
"""Gray image, uint8 (H, W)."""

Bgr: TypeAlias = NDArray[np.uint8]
"""Colour image, uint8 (H, W, 3), blue first."""

Float32Array: TypeAlias = NDArray[np.float32]
Int64Array: TypeAlias = NDArray[np.int64]


_UINT8 = np.dtype(np.uint8)
_FLOAT32 = np.dtype(np.float32)
_INT64 = np.dtype(np.int64)


def _expect(
    array: NDArray[np.generic], name: str, dtype: np.dtype[np.generic], *shape: int
) -> None:
    # Called ten times a frame, so it costs one comparison each for type and shape.
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(
            f"{name} must be {dtype.name} {shape}, not {array.dtype.name} {array.shape}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture from a camera.

    Attributes:
        luma: uint8 (H, W); owned by the frame until the next one is taken, read only.
        captured_ns: `time.monotonic_ns()` at capture; the only time the stages downstream know.
        number: rises by one with every picture of the camera, dropped ones included.
        to_bgr: makes the colour picture; None for a gray source.
        to_scaled_bgr: makes the colour picture at another size (width, height), for a camera where
            that is cheaper than scaling the whole; None elsewhere.
    """

    luma: Luma
    captured_ns: int
    number: int
    to_bgr: Callable[[], Bgr] | None = None
    to_scaled_bgr: Callable[[tuple[int, int]], Bgr] | None = None

    def __post_init__(self) -> None:
        if self.luma.dtype != _UINT8 or self.luma.ndim != 2:
            raise ValueError(
                f"luma must be uint8 (H, W), not {self.luma.dtype.name} {self.luma.shape}"
            )

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        height, width = self.luma.shape
        return width, height

    def bgr(self) -> Bgr:
        """Make the colour picture, uint8 (H, W, 3); a gray source repeats its luma."""
        if self.to_bgr is not None:
            return self.to_bgr()
        return np.repeat(self.luma[:, :, np.newaxis], 3, axis=2)


@dataclass(frozen=True, slots=True)
class Gap:
    """A gap in a camera's frames or the seam of a looping clip, which ends all tracks.

    Attributes:
        captured_ns: `time.monotonic_ns()` of the last picture before the gap, or of the gap's
            discovery when there was none.
        reason: one plain phrase, for the log and the events.
    """

    captured_ns: int
    reason: str


class CameraState(str, Enum):
    """A camera's state."""

    ONLINE = "online"
    OFFLINE = "offline"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """A camera's published status.

    Attributes:
        state: online from the first frame on, offline while no frames come, or disabled.
        reason: one plain sentence without credentials; empty when online.
        remedy: the action to take, for the log and the alert; empty when none is needed.
    """

    state: CameraState
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class CameraStats:
    """A camera's counters since the process started.

    Attributes:
        captured: frames from the device or file.
        dropped: frames replaced by a newer one before the pipeline took them.
        reopened: successful openings after the first.
    """

    captured: int
    dropped: int
    reopened: int


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """The faces found in one frame, best score first; N may be 0.

    Attributes:
        xyxy: float32 (N, 4), pixels of the frame, left, top, right, bottom; may reach outside it.
        score: float32 (N,), the detector's score in [0, 1].
        landmarks: float32 (N, 5, 2), pixels: right eye, left eye, nose, right and left mouth
            corner (the person's right); NaN where the detector has none.
        frame_size: width and height of the frame in pixels.
    """

    xyxy: Float32Array
    score: Float32Array
    landmarks: Float32Array
    frame_size: tuple[int, int]

    def __post_init__(self) -> None:
        count = len(self.score)
        _expect(self.xyxy, "xyxy", _FLOAT32, count, 4)
        _expect(self.score, "score", _FLOAT32, count)
        _expect(self.landmarks, "landmarks", _FLOAT32, count, 5, 2)

    def __len__(self) -> int:
        return len(self.score)

    @classmethod
    def none(cls, frame_size: tuple[int, int]) -> Faces:
        """Make the faces of a frame without any."""
        return cls(
            xyxy=np.empty((0, 4), np.float32),
            score=np.empty(0, np.float32),
            landmarks=np.empty((0, 5, 2), np.float32),
            frame_size=frame_size,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Tracks:
    """The tracked faces seen in one frame, and the tracks that ended with it; N may be 0.

    Attributes:
        track_id: int64 (N,), rising from 1, unique in a run.
        xyxy: float32 (N, 4), pixels, as in `Faces`.
        score: float32 (N,), the detector's score in [0, 1].
        landmarks: float32 (N, 5, 2), pixels, as in `Faces`.
        frame_size: width and height of the frame in pixels.
        ended: ids of the tracks that ended with this frame; none of them is in `track_id`.
    """

    track_id: Int64Array
    xyxy: Float32Array
    score: Float32Array
    landmarks: Float32Array
    frame_size: tuple[int, int]
    ended: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.track_id)
        _expect(self.track_id, "track_id", _INT64, count)
        _expect(self.xyxy, "xyxy", _FLOAT32, count, 4)
        _expect(self.score, "score", _FLOAT32, count)
        _expect(self.landmarks, "landmarks", _FLOAT32, count, 5, 2)

    def __len__(self) -> int:
        return len(self.track_id)


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """The model behind a score, and below which confidence it abstains.

    Attributes:
        name: the model's name.
        sha256: hash of the file that runs.
        abstain_below: confidence in [0, 1] below which its word is `uncertain`.
    """

    name: str
    sha256: str
    abstain_below: float = 0.0

    @classmethod
    def of(cls, manifest: Manifest, file: ModelFile) -> ModelIdentity:
        """Name one file of a model."""
        return cls(manifest.name, file.sha256, manifest.calibration.abstain_below)


@dataclass(frozen=True, slots=True, eq=False)
class EmotionScores:
    """Calibrated class probabilities for the tracks of one frame, in the same order.

    Attributes:
        labels: the C class names in the model's output order, from its manifest.
        probs: float32 (N, C); rows sum to 1.
        model: the model behind them; it may be another one from one frame to the next.
    """

    labels: tuple[str, ...]
    probs: Float32Array
    model: ModelIdentity

    def __post_init__(self) -> None:
        _expect(self.probs, "probs", _FLOAT32, len(self.probs), len(self.labels))

    def __len__(self) -> int:
        return len(self.probs)


class EventKind(str, Enum):
    """The kind of an event about a track."""

    STARTED = "started"
    UPDATED = "updated"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, eq=False)
class EmotionEvent:
    """The smoothed emotion of one track at one moment.

    Attributes:
        kind: started, updated or ended.
        track_id: the track's id.
        captured_ns: monotonic time of the frame this is about (of the last sight, for ended).
        emotion: a label of the model, or `uncertain` when the classifier abstains.
        confidence: smoothed probability of the likeliest label, in [0, 1].
        labels: class names in the model's output order.
        probs: float32 (C,), smoothed, sums to 1.
        xyxy: float32 (4,), pixels, the last box seen.
        frame_size: width and height of the frame in pixels.
        started_ns: monotonic time of the track's first sight; never after `captured_ns`.
        model: the model that saw that frame.
    """

    kind: EventKind
    track_id: int
    captured_ns: int
    emotion: str
    confidence: float
    labels: tuple[str, ...]
    probs: Float32Array
    xyxy: Float32Array
    frame_size: tuple[int, int]
    started_ns: int
    model: ModelIdentity

    def __post_init__(self) -> None:
        _expect(self.probs, "probs", _FLOAT32, len(self.labels))
        _expect(self.xyxy, "xyxy", _FLOAT32, 4)
        if self.started_ns > self.captured_ns:
            raise ValueError(f"track {self.track_id} cannot start after it was seen")

    @property
    def duration_s(self) -> float:
        """Seconds from the track's first sight to this event."""
        return (self.captured_ns - self.started_ns) / 1e9
