"""The smoother, which turns per-frame probabilities into events about tracks.

Its results depend on the frames' times, not their number, so that a Raspberry Pi at five frames a
second and a Jetson at thirty give the same events.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fer_agent.config.model import SmootherConfig
from fer_agent.models.emotions import UNCERTAIN
from fer_agent.vision.records import (
    EmotionEvent,
    EmotionScores,
    EventKind,
    Float32Array,
    Int64Array,
    ModelIdentity,
    Tracks,
)

WARM_UP_S = 0.25
"""A track starts at the first sight this long after its first one (or `dwell_s`, if shorter), so
that its first word depends on several frames; at four frames a second or fewer, on two."""

_NEVER = np.iinfo(np.int64).max


@dataclass(slots=True)
class _TrackState:
    """The state of one open track.

    Attributes:
        labels: class names in the model's output order.
        probs: C smoothed numbers; a list, because arrays of so few numbers are slower.
        weight: share of past frames in `probs`, in [0, 1]; 0 after a single frame.
        leading_since_ns: int64 (C + 1,), time from which each label, and at the end `uncertain`,
            leads the published word; `_NEVER` where it does not. None where none does.
        word: the published word; empty until started.
        started_ns: time of the first sight.
        seen_ns: time of the last sight.
        event_ns: time of the last event.
        xyxy: float32 (4,), the last box seen.
        frame_size: width and height of the frame in pixels.
        model: the model that scored it at the last sight.
    """

    labels: tuple[str, ...]
    probs: list[float]
    started_ns: int
    seen_ns: int
    xyxy: Float32Array
    frame_size: tuple[int, int]
    model: ModelIdentity
    leading_since_ns: Int64Array | None = None
    weight: float = 0.0
    word: str = ""
    event_ns: int = 0

    @property
    def words(self) -> tuple[str, ...]:
        return (*self.labels, UNCERTAIN)

    def event(self, kind: EventKind, track_id: int) -> EmotionEvent:
        self.event_ns = self.seen_ns
        return EmotionEvent(
            kind=kind,
            track_id=track_id,
            captured_ns=self.seen_ns,
            emotion=self.word,
            confidence=min(1.0, max(self.probs)),
            labels=self.labels,
            probs=np.array(self.probs, np.float32),
            xyxy=self.xyxy,
            frame_size=self.frame_size,
            started_ns=self.started_ns,
            model=self.model,
        )


class EmotionSmoother:
    """Smoother of each track's probabilities with hysteresis; satisfies `ports.Smoother`.

    Every track gives exactly one `started` event, then any number of `updated`, then one `ended`;
    a track that ends during its warm-up gives `started` and `ended` at once.

    Args:
        config: time constant, hysteresis, interval of a steady track's events, and the confidence
            below which the word is `uncertain`; None for the threshold of the scores' model.
    """

    def __init__(self, config: SmootherConfig) -> None:
        self._config = config
        self._abstain_below = config.abstain_below or 0.0
        self._states: dict[int, _TrackState] = {}
        self._last_ns = 0

    def update(self, tracks: Tracks, scores: EmotionScores, captured_ns: int) -> list[EmotionEvent]:
        """Smooth one frame's scores.

        Args:
            tracks: the frame's tracks, and those that ended with it.
            scores: their probabilities, in the same order. When the labels change from one frame
                to the next (another model), each track's smoothing starts again.
            captured_ns: monotonic time of the frame, not before the last one's.

        Returns:
            The events this frame causes, lowest track id first. `updated` comes when the word
            changes, else every `update_s`; the events of a lost track are about its last sight.
        """
        # A frame's scores stand for the time since the frame before, seen or not, so that a face
        # back in sight is not classified by one frame alone.
        step_s = max(0, captured_ns - self._last_ns) / 1e9
        self._last_ns = captured_ns
        if self._config.abstain_below is None:
            self._abstain_below = scores.model.abstain_below
        events = [event for track_id in tracks.ended for event in self._end(track_id)]
        if not len(tracks) and not events:
            return events
        for track_id, xyxy, probs in zip(
            tracks.track_id.tolist(), tracks.xyxy, scores.probs.tolist(), strict=True
        ):
            state = self._states.get(track_id)
            if state is None:
                state = self._states[track_id] = _TrackState(
                    labels=scores.labels,
                    probs=probs,
                    started_ns=captured_ns,
                    seen_ns=captured_ns,
                    xyxy=xyxy,
                    frame_size=tracks.frame_size,
                    model=scores.model,
                )
            else:
                self._blend(state, scores.labels, probs, step_s)
                state.seen_ns, state.xyxy = captured_ns, xyxy
                state.frame_size, state.model = tracks.frame_size, scores.model
            events += self._due_events(track_id, state)
        return sorted(events, key=lambda event: event.track_id)

    def finish(self) -> list[EmotionEvent]:
        """End every open track, as of its last sight, and forget it."""
        return [event for track_id in sorted(self._states) for event in self._end(track_id)]

    def _blend(
        self, state: _TrackState, labels: tuple[str, ...], probs: list[float], step_s: float
    ) -> None:
        """Mix one frame into the probabilities by an exponential average over time.

        Its weights are divided by their sum, as in Adam (Kingma and Ba, 2015, arXiv:1412.6980), so
        that the first frame does not count for more than the ones after it.
        """
        if state.labels != labels:
            state.labels, state.probs, state.weight = labels, probs, 0.0
            state.leading_since_ns = None
            return
        fresh = 1.0 - math.exp(-step_s / self._config.time_constant_s)
        # The first frame has no time step of its own; it takes the second one's.
        past = (state.weight or fresh) * (1.0 - fresh)
        state.weight = past + fresh
        if state.weight > 0.0:
            state.probs = [
                (past * before + fresh * now) / state.weight
                for before, now in zip(state.probs, probs, strict=True)
            ]

    def _due_events(self, track_id: int, state: _TrackState) -> list[EmotionEvent]:
        """Choose the track's word; return the event that is due, if one is."""
        now_ns = state.seen_ns
        if not state.word:
            if now_ns - state.started_ns < min(WARM_UP_S, self._config.dwell_s) * 1e9:
                return []
            state.word = self._likeliest(state)
            return [state.event(EventKind.STARTED, track_id)]
        word = self._next_word(state, now_ns)
        if word != state.word:
            state.word = word
            state.leading_since_ns = None
        elif now_ns - state.event_ns < self._config.update_s * 1e9:
            return []
        return [state.event(EventKind.UPDATED, track_id)]

    def _next_word(self, state: _TrackState, now_ns: int) -> str:
        """Keep the published word unless another has led for `dwell_s`."""
        likeliest = self._likeliest(state)
        if state.word == likeliest:  # the usual case: nothing else can lead
            state.leading_since_ns = None
            return likeliest
        if state.word not in state.words:  # another model, which does not know it
            return likeliest
        published = state.words.index(state.word)
        likelihood = np.append(state.probs, self._abstain_below)
        # A label must reach the threshold and lead by the margin; `uncertain` needs no margin to
        # take over, only to be displaced.
        leads = likelihood >= max(likelihood[published] + self._config.margin, self._abstain_below)
        leads[-1] = max(state.probs) < self._abstain_below
        leads[published] = False
        before_ns = _NEVER if state.leading_since_ns is None else state.leading_since_ns
        since_ns = np.where(leads, np.minimum(before_ns, now_ns), _NEVER)
        state.leading_since_ns = since_ns
        ready = since_ns <= now_ns - round(self._config.dwell_s * 1e9)
        if not ready.any():
            return state.word
        return state.words[int(np.argmax(np.where(ready, likelihood, -1.0)))]

    def _likeliest(self, state: _TrackState) -> str:
        best = max(state.probs)
        return state.labels[state.probs.index(best)] if best >= self._abstain_below else UNCERTAIN

    def _end(self, track_id: int) -> list[EmotionEvent]:
        """Close a track; nothing for one that was never seen here."""
        state = self._states.pop(track_id, None)
        if state is None:
            return []
        events = []
        if not state.word:
            state.word = self._likeliest(state)
            events.append(state.event(EventKind.STARTED, track_id))
        return [*events, state.event(EventKind.ENDED, track_id)]
