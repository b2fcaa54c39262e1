"""The running agent's news of updates: their state in `info`, a rejected version as an alert.

Syncs and activations are separate processes that leave files in the store's `.state/`; a periodic
task of the agent looks whether one of them has changed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from fer_agent.mqtt.payloads import ModelUpdate, UpdateFailure, Updates
from fer_agent.updates import report
from fer_agent.updates.activation import journal, state
from fer_agent.updates.activation.state import RejectedVersion, UpdateState
from fer_agent.updates.activation.versions import in_use
from fer_agent.updates.report import SyncReport
from fer_agent.vision.ports import AlertSink

logger = logging.getLogger(__name__)

ALERT: Final = "model-update"
"""Id of the alert."""


class UpdateNews:
    """Publishes the files that syncs and activations leave in the store, once a second.

    Args:
        store: the model store's folder.
        classifier: name of the model in use, published even when no sync ever ran.
        sink: publishes alerts.
        on_updates: called with the state of updates when it has changed.
    """

    def __init__(
        self, store: Path, classifier: str, sink: AlertSink, on_updates: Callable[[Updates], None]
    ) -> None:
        self._store, self._classifier = store, classifier
        self._sink, self._on_updates = sink, on_updates
        self._seen: list[object] | None = None

    def tick(self) -> None:
        """Publish the state again if it has changed."""
        seen = self._signature()
        if seen == self._seen:
            return
        self._seen = seen
        last = report.read(self._store)
        synced = [] if last is None else [each.name for each in last.models]
        states = [
            state.update_state(self._store, name, in_use(self._store, name))
            for name in sorted({self._classifier, *synced})
        ]
        self._on_updates(updates(last, states))
        if text := alert(last, states):
            logger.warning("model update: %s", text)
            self._sink.raise_alert(ALERT, text)
        else:
            self._sink.clear_alert(ALERT)

    def close(self, *, orderly: bool) -> None:
        """Leave the alert up: a rejection lasts whether or not the agent runs."""

    def _signature(self) -> list[object]:
        """Return a value that differs after each write, which always replaces a file.

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


def updates(last: SyncReport | None, states: Sequence[UpdateState]) -> Updates:
    """Return the part of `info` about updates.

    Args:
        last: the last sync's report; None without one.
        states: each model's state.
    """
    available = {} if last is None else {each.name: each.available for each in last.models}
    failures = [
        UpdateFailure(at=each.last_rejected.at, text=_refused(each.last_rejected))
        for each in states
        if each.last_rejected is not None
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
                on_probation=each.pending,
            )
            for each in states
        ),
        last_failure=max(failures, key=lambda failure: failure.at, default=None),
    )


def alert(last: SyncReport | None, states: Sequence[UpdateState]) -> str:
    """Return the alert's text; empty without a rejected version that is still the newest.

    A sync decides about the rejected versions it finds: those that it no longer names were retired
    or replaced. Only later ones are added.
    """
    said = [] if last is None or not last.alert else [last.alert]
    said += [
        _refused(each.last_rejected)
        for each in states
        if each.last_rejected is not None and (last is None or each.last_rejected.at > last.at)
    ]
    return "; ".join(said)


def _refused(rejected: RejectedVersion) -> str:
    return f"{rejected.name} {rejected.build.version} was refused: {rejected.reason}"
