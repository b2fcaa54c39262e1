"""The result of the last sync: `<store>/.state/sync.json`, which the running agent publishes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime

from fer_agent.system.records import StateRecord
from fer_agent.updates.activation.journal import STATE_FOLDER

Outcome = Literal["current", "updated", "installed", "available", "refused", "too-new", "failed"]
"""The outcome of a sync for one model.

    current     the running version is the newest that this agent may have
    updated     a new version was switched to
    installed   a new version is in the store, not switched to
    available   a new version is in the repository; the sync was a dry run
    refused     the newest version was rejected, now or earlier
    too-new     the newest version needs a newer agent, and the running one stays
    failed      the newest version could not be fetched or verified
"""


class ModelReport(StateRecord):
    """One model's part of a sync."""

    name: str
    current: str | None
    """The version in use after the sync; null without one."""
    available: str | None
    """The newest version in the repository, whether or not this agent can run it."""
    outcome: Outcome
    reason: str = ""
    """Why, in a sentence for people, where the outcome alone does not say it."""


class Failure(StateRecord):
    """The reason why a sync failed."""

    at: AwareDatetime
    """When, by the board's clock."""
    text: str
    remedy: str
    exit_code: int


class SyncReport(StateRecord):
    """One sync."""

    schema_version: Literal[1] = 1
    at: AwareDatetime
    """When it ended, by the board's clock."""
    repository: str
    trusted_time: AwareDatetime | None = None
    """The time that expiry was judged against; null when the repository was not reached."""
    models: tuple[ModelReport, ...] = ()
    ok: bool
    """True if it ended without a failure."""
    last_failure: Failure | None = None
    """The newest failure, of this sync or one before."""
    alert: str = ""
    """Text of the alert `model-update`; empty without one."""


def path(store: Path) -> Path:
    """Return the report's file."""
    return store / STATE_FOLDER / "sync.json"


def read(store: Path) -> SyncReport | None:
    """Read the last report; None without one that this agent can read."""
    return SyncReport.read(path(store))


def write(store: Path, report: SyncReport) -> None:
    """Replace the last report.

    Raises:
        OSError: the store cannot be written.
    """
    report.write(path(store))
