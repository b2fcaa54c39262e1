"""HOTA, IDF1 and id switches of the tracker: how well ids stay with people.

On simulated scenes the truth is exact. A face behind another is neither there nor found; of the
others one in ten is missed, and boxes jitter by 2 % of the face's size. What no tracker can do
better with these boxes is printed beside: the same boxes under the ids of the truth.

On the clips nobody has drawn the truth. Their people keep to their sides, so a box that the
detector finds is the person's left or right of three fifths of the picture's width. That judges
ids alone: boxes are their own truth, and faces that the detector misses do not count.

Needs SciPy, which the trainer's extra brings.

    python benchmarks/tracking.py [--scenes 50] [--shared ../shared]
"""

from __future__ import annotations

import argparse
import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from track_metrics import TrackedFrame, TrackFigures, overlap, track_figures

from fer_agent.camera.backends.clips import play
from fer_agent.camera.backends.replay import make_frame
from fer_agent.config.model import DetectorConfig, TrackerConfig
from fer_agent.detector.yunet import YuNetDetector
from fer_agent.inference.onnx import OnnxSession
from fer_agent.vision.records import Faces
from fer_agent.vision.tracker import IouTracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from track_metrics import Floats, Ints

    Random = np.random.Generator
    Places = Callable[[float], Floats]

FRAME_SIZE = (1280, 720)
SIZE = 80.0
"""A face's size in pixels: the square root of its box's area."""

MISSED = 0.1
JITTER = 0.02
HIDDEN = 0.4
"""A face of which this share is behind another, as intersection over union, is not seen."""

SIDE = 0.6


class Motion(NamedTuple):
    """People who move.

    Attributes:
        name: the scene's.
        seconds: how long it takes.
        places: the centres of all faces in pixels (N, 2) at a time in seconds, the nearest first.
    """

    name: str
    seconds: float
    places: Places


def crossing(random: Random) -> Motion:
    """Two people pass each other, each at half a face to three faces a second."""
    speeds = random.uniform(0.5, 3.0, 2) * SIZE * (1, -1)
    seconds = float(8 * SIZE / (speeds[0] - speeds[1]))
    offset = random.uniform(-0.3, 0.3) * SIZE

    def places(at_s: float) -> Floats:
        return np.stack([640 + speeds * (at_s - seconds / 2), [360, 360 + offset]], axis=1)

    return Motion("two cross", seconds, places)


def row(random: Random) -> Motion:
    """Three people walk by in a row, 1.5 faces apart, at one to three faces a second."""
    speed = random.uniform(1.0, 3.0) * SIZE
    behind = 1.5 * SIZE * np.arange(3)

    def places(at_s: float) -> Floats:
        return np.stack([200 + speed * at_s - behind, np.full(3, 360.0)], axis=1)

    return Motion("three in a row", 800 / speed, places)


def wandering(random: Random) -> Motion:
    """Six people wander about, at 0.7 faces a second in each direction, as their root mean square.

    Velocity is an Ornstein-Uhlenbeck process of one second; the picture's edges send people back.
    """
    steps, step_s = 1500, 0.01
    jolts = random.normal(0, 0.7 * SIZE * math.sqrt(2 * step_s), (steps, 6, 2))
    at, velocity = random.uniform((100, 100), (1180, 620), (6, 2)), jolts[0] * 0
    path = []
    for jolt in jolts:
        velocity = velocity * (1 - step_s) + jolt
        velocity = np.where(at < (60, 60), abs(velocity), velocity)
        velocity = np.where(at > (1220, 660), -abs(velocity), velocity)
        at = at + velocity * step_s
        path.append(at)
    return Motion("six wander", 14.0, lambda at_s: path[round(at_s / step_s)])


NewMotion: TypeAlias = "Callable[[Random], Motion]"

SCENES: tuple[NewMotion, ...] = (crossing, row, wandering)
RATES: tuple[float | None, ...] = (30.0, 10.0, 5.0, 2.0, 1.0, None)
"""Frames a second; None draws each interval from those of 1 to 30."""


def sample_times(seconds: float, fps: float | None, random: Random) -> Iterator[float]:
    """Yield the times of a scene's frames."""
    at_s = 0.0
    while at_s <= seconds:
        yield at_s
        at_s += 1 / (fps or 30 ** random.uniform(0, 1))


class Look(NamedTuple):
    """One frame of a scene.

    Attributes:
        at_s: its time.
        true_ids: of the faces that can be seen (T,).
        true_xyxy: their boxes (T, 4).
        owners: whose the boxes are that the detector finds (P,).
        xyxy: these boxes (P, 4), in no order.
    """

    at_s: float
    true_ids: Ints
    true_xyxy: Floats
    owners: Ints
    xyxy: Floats


def looks(motion: Motion, fps: float | None, random: Random) -> Iterator[Look]:
    """Yield the frames of a scene as a detector finds its faces."""
    for at_s in sample_times(motion.seconds, fps, random):
        boxes = _boxes(motion.places(at_s), np.zeros(1))
        behind = np.tril(overlap(boxes, boxes), -1).max(axis=1, initial=0.0) >= HIDDEN
        seen = np.flatnonzero(~behind)
        found = random.permutation(seen[random.random(len(seen)) >= MISSED])
        centres = motion.places(at_s)[found] + random.normal(0, JITTER * SIZE, (len(found), 2))
        xyxy = _boxes(centres, random.normal(0, JITTER, len(found)))
        yield Look(at_s, seen + 1, boxes[seen], found + 1, xyxy)


def _boxes(centres: Floats, log_sizes: Floats) -> Floats:
    half = np.exp(log_sizes)[:, None] * SIZE * np.array([0.42, 0.6])
    return np.concatenate([centres - half, centres + half], axis=1)


def track(scene: Iterable[Look]) -> Iterator[TrackedFrame]:
    """Let the tracker, with its default settings, follow the faces of one scene."""
    tracker = IouTracker(TrackerConfig())
    for look in scene:
        count = len(look.xyxy)
        faces = Faces(
            xyxy=look.xyxy.astype(np.float32),
            score=np.full(count, 0.9, np.float32),
            landmarks=np.zeros((count, 5, 2), np.float32),
            frame_size=FRAME_SIZE,
        )
        tracks = tracker.update(faces, 10**9 + round(look.at_s * 1e9))
        yield TrackedFrame(
            look.true_ids, look.true_xyxy, tracks.track_id, tracks.xyxy.astype(np.float64)
        )


def know(scene: Iterable[Look]) -> Iterator[TrackedFrame]:
    """Give the boxes found the ids of the truth."""
    for look in scene:
        yield TrackedFrame(look.true_ids, look.true_xyxy, look.owners, look.xyxy)


def apart(sequences: Iterable[Iterable[TrackedFrame]]) -> list[TrackedFrame]:
    """Join sequences, with ids that no two of them share."""
    return [
        frame._replace(true_ids=frame.true_ids + 1000 * number, ids=frame.ids + 1000 * number)
        for number, frames in enumerate(sequences)
        for frame in frames
    ]


class Simulated(NamedTuple):
    """Figures of a number of scenes.

    Attributes:
        ours: the tracker's.
        best: the best possible ones.
        kept: scenes in which everybody kept the first id.
    """

    ours: TrackFigures
    best: TrackFigures
    kept: int


def simulated(make: NewMotion, fps: float | None, count: int) -> Simulated:
    """Track the people of so many scenes."""
    randoms = map(np.random.default_rng, range(count))
    scenes = [list(looks(make(random), fps, random)) for random in randoms]
    tracked = [list(track(scene)) for scene in scenes]
    return Simulated(
        ours=track_figures(apart(tracked)),
        best=track_figures(apart(map(know, scenes))),
        kept=sum(not track_figures(frames).switches for frames in tracked),
    )


def clip(path: Path, detector: YuNetDetector, every: int) -> Iterator[Look]:
    """Yield every so-manieth frame of a clip as the detector finds its faces."""
    for picture in itertools.islice(play(path, 30.0), 0, None, every):
        faces = detector.detect(make_frame(picture.bgr, 0, 0))
        xyxy = faces.xyxy.astype(np.float64)
        owners = 1 + (xyxy[:, ::2].mean(axis=1) > SIDE * faces.frame_size[0])
        if len(np.unique(owners)) < len(owners):
            raise SystemExit(f"{path}: two faces on one side, so this rule does not fit")
        yield Look(picture.at_s, owners, xyxy, owners, xyxy)


def line(
    name: str, rate: str, ours: TrackFigures, best: TrackFigures | None = None, kept: str = ""
) -> str:
    """Return a row of the table."""
    figures = (ours.hota, best and best.hota, ours.idf1, best and best.idf1)
    cells = [f"{figure:.3f}" if figure is not None else "" for figure in figures]
    numbers = "".join(f"{cell:>8}" for cell in cells)
    return f"{name:42}{rate:>8}{numbers}{ours.switches:>10}{ours.faces:>8}{kept:>8}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--scenes", type=int, default=50, help="simulated scenes for each row")
    parser.add_argument("--shared", type=Path, help="folder with media/ and models/, for the clips")
    args = parser.parse_args()
    header = f"{'HOTA':>8}{'best':>8}{'IDF1':>8}{'best':>8}{'switches':>10}{'faces':>8}{'kept':>8}"
    print(f"{'scene':42}{'fps':>8}{header}")
    for make, fps in itertools.product(SCENES, RATES):
        name = make(np.random.default_rng(0)).name
        rate = "1 to 30" if fps is None else f"{fps:g}"
        ours, best, kept = simulated(make, fps, args.scenes)
        print(line(name, rate, ours, best, f"{kept}"), flush=True)
    if args.shared is not None:
        session = OnnxSession(args.shared / "models" / "yunet_s_dynamic.onnx")
        detector = YuNetDetector(session, DetectorConfig())
        for path in sorted((args.shared / "media").glob("*.gif")):
            for every in (1, 3, 11):
                ours = track_figures(list(track(clip(path, detector, every))))
                print(line(path.stem[:41], f"{11.8 / every:.1f}", ours), flush=True)


if __name__ == "__main__":
    main()
