"""What the running agent tells of updates: their state in `info`, a refusal as a standing alert.

Syncs and activations are processes of their own. They leave files in the store's `.state/`, and
this chore of the agent looks whether one of them has changed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Protocol

from fer_agent.models.store import shipped_folder
from fer_agent.mqtt.payloads import ModelUpdate, UpdateFailure, Updates
from fer_agent.updates import report
from fer_agent.updates.activation import journal, state
from fer_agent.updates.activation.versions import build_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from fer_agent.updates.activation.state import UpdateState
    from fer_agent.updates.report import SyncReport

logger = logging.getLogger(__name__)

ALERT: Final = "model-update"
"""Id of the alert."""


class Board(Protocol):
    """Where news are put up; `MqttPublisher` is one."""

    def raise_alert(self, alert_id: str, text: str) -> None:
        """Put a fault up, or change its text."""
        ...

    def clear_alert(self, alert_id: str) -> None:
        """Take it down; harmless when it is not there."""
        ...


class UpdateNews:
    """Puts up what syncs and activations leave in the store; looked after once a second.

    Args:
        store: the model store's folder.
        classifier: name of the model in use, told of even when no sync ever ran.
        board: where alerts are raised.
        on_updates: called with the state of updates when it has changed.
    """

    def __init__(
        self, store: Path, classifier: str, board: Board, on_updates: Callable[[Updates], None]
    ) -> None:
        self._store, self._classifier = store, classifier
        self._board, self._on_updates = board, on_updates
        self._seen: list[object] | None = None

    def tick(self) -> None:
        """Tell what is new, if anything is."""
        seen = self._signature()
        if seen == self._seen:
            return
        self._seen = seen
        last = report.read(self._store)
        synced = [] if last is None else [each.name for each in last.models]
        states = [self._state(name) for name in sorted({self._classifier, *synced})]
        self._on_updates(updates(last, states))
        if text := alert(last, states):
            logger.warning("model update: %s", text)
            self._board.raise_alert(ALERT, text)
        else:
            self._board.clear_alert(ALERT)

    def close(self, *, orderly: bool) -> None:
        """Leave everything as it stands: a refusal does so whether or not the agent runs."""

    def _signature(self) -> list[object]:
        """Return what differs after each write: all of them put a new file in the old one's place.

        The links are part of it, because one moves after its journal was written.
        """
        journals = sorted((self._store / journal.STATE_FOLDER / "activation").glob("*.json"))
        files = [report.path(self._store), state.path(self._store), *journals]
        files += [self._store / path.stem for path in journals]
        found: list[object] = []
        for path in files:
            try:
                stat = path.lstat()
            except OSError:
                found.append(None)
            else:
                found.append((path.name, stat.st_ino, stat.st_mtime_ns))
        return found

    def _state(self, name: str) -> UpdateState:
        current = build_of(self._store / name) or build_of(shipped_folder() / name)
        return state.update_state(self._store, name, current)


def updates(last: SyncReport | None, states: Sequence[UpdateState]) -> Updates:
    """Put the part of `info` together.

    Args:
        last: the last sync's report; None when there was none.
        states: what the store says of each model.
    """
    available = {} if last is None else {each.name: each.available for each in last.models}
    failures = [
        UpdateFailure(at=each.last_refusal.at, text=_refused(each))
        for each in states
        if each.last_refusal is not None
    ]
    if last is not None and last.last_failure is not None:
        failures.append(UpdateFailure(at=last.last_failure.at, text=last.last_failure.text))
    return Updates(
        synced=None if last is None else last.at,
        models=tuple(
            ModelUpdate(
                name=each.name,
                current=None if each.current is None else each.current.version,
                available=available.get(each.name),
                on_probation=each.on_probation,
            )
            for each in states
        ),
        last_failure=max(failures, key=lambda failure: failure.at, default=None),
    )


def alert(last: SyncReport | None, states: Sequence[UpdateState]) -> str:
    """Return what stands as the alert; empty when nothing was refused, or it is over.

    A sync judges the refusals that it finds: what it no longer names was retired or replaced. Only
    refusals since then are added.
    """
    said = [] if last is None or not last.alert else [last.alert]
    said += [
        _refused(each)
        for each in states
        if each.last_refusal is not None and (last is None or each.last_refusal.at > last.at)
    ]
    return "; ".join(said)


def _refused(told: UpdateState) -> str:
    if told.last_refusal is None:
        return ""
    refusal = told.last_refusal
    return f"{refusal.name} {refusal.build.version} was refused: {refusal.reason}"
