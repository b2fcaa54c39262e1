"""What the running agent tells of updates: through a real store, to a board that keeps notes."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from syncing_device import NAME, make_files

from fer_agent.updates import report
from fer_agent.updates.activation import journal, state
from fer_agent.updates.activation.journal import JournalEntry, ModelVersion, Phase
from fer_agent.updates.activation.state import RejectedVersion
from fer_agent.updates.activation.versions import Versions, version_of
from fer_agent.updates.news import ALERT, UpdateNews
from fer_agent.updates.report import Failure, ModelReport, SyncReport

if TYPE_CHECKING:
    from pathlib import Path

    from fer_agent.mqtt.payloads import Updates

NOW = datetime(2027, 3, 1, tzinfo=timezone.utc)


class Notes:
    """A board that keeps what was put up."""

    def __init__(self) -> None:
        self.updates: list[Updates] = []
        self.alerts: dict[str, str] = {}

    def raise_alert(self, alert_id: str, text: str) -> None:
        self.alerts[alert_id] = text

    def clear_alert(self, alert_id: str) -> None:
        self.alerts.pop(alert_id, None)


@pytest.fixture
def board() -> Notes:
    return Notes()


@pytest.fixture
def news(tmp_path: Path, board: Notes) -> UpdateNews:
    return UpdateNews(tmp_path, NAME, board, board.updates.append)


def lay(store: Path, version: str) -> ModelVersion:
    """Put a version into the store and let the link name it."""
    staged = store / "staged"
    staged.mkdir()
    for name, content in make_files(version).items():
        (staged / name).write_bytes(content)
    build = version_of(staged)
    assert build is not None
    versions = Versions(store, NAME)
    versions.adopt(staged, build)
    versions.point(build.key)
    return build


def write_report(store: Path, at: datetime = NOW, **changes: Any) -> None:
    one = ModelReport(name=NAME, current="1.0.0", available="1.1.0", outcome="refused")
    told = {"at": at, "repository": "https://models.example", "models": (one,), "ok": True}
    report.write(store, SyncReport(**told | changes))


def refuse(store: Path, build: ModelVersion, at: datetime) -> None:
    state.reject(store, RejectedVersion(name=NAME, build=build, reason="it is too slow", at=at))


def test_nothing_is_said_twice(tmp_path: Path, news: UpdateNews, board: Notes) -> None:
    for _ in range(3):
        news.tick()
    assert len(board.updates) == 1
    lay(tmp_path, "1.0.0")
    write_report(tmp_path)
    for _ in range(3):
        news.tick()
    assert len(board.updates) == 2


def test_current_and_available_versions_are_told(
    tmp_path: Path, news: UpdateNews, board: Notes
) -> None:
    news.tick()
    assert board.updates[-1].synced is None
    lay(tmp_path, "1.0.0")
    write_report(tmp_path)
    news.tick()
    told = board.updates[-1]
    assert told.synced == NOW
    assert told.last_failure is None
    (one,) = told.models
    assert (one.name, one.current, one.available, one.on_probation) == (
        NAME, "1.0.0", "1.1.0", False,
    )  # fmt: skip


def test_a_move_of_the_link_after_its_journal_is_noticed(
    tmp_path: Path, news: UpdateNews, board: Notes
) -> None:
    old = lay(tmp_path, "1.0.0")
    new = lay(tmp_path, "1.1.0")
    versions = Versions(tmp_path, NAME)
    versions.point(old.key)
    journal.write(
        tmp_path,
        JournalEntry(name=NAME, phase=Phase.SWITCHED, candidate=new, previous=old, since=NOW),
    )
    news.tick()
    assert (board.updates[-1].models[0].current, board.updates[-1].models[0].on_probation) == (
        "1.0.0", False,
    )  # fmt: skip
    versions.point(new.key)
    news.tick()
    assert (board.updates[-1].models[0].current, board.updates[-1].models[0].on_probation) == (
        "1.1.0", True,
    )  # fmt: skip


def test_a_failed_sync_is_in_info_and_what_it_refused_stands_as_alert(
    tmp_path: Path, news: UpdateNews, board: Notes
) -> None:
    failure = Failure(at=NOW, text="the metadata has expired", remedy="wait", exit_code=76)
    write_report(tmp_path, ok=False, last_failure=failure, alert="expired; wait")
    news.tick()
    told = board.updates[-1].last_failure
    assert told is not None
    assert (told.at, told.text) == (NOW, "the metadata has expired")
    assert board.alerts == {ALERT: "expired; wait"}
    # A good sync ends the alert; what failed last is still known.
    write_report(tmp_path, last_failure=failure)
    news.tick()
    assert board.updates[-1].last_failure == told
    assert board.alerts == {}


def test_a_version_that_went_back_stands_as_alert_until_a_sync_finds_it_gone(
    tmp_path: Path, news: UpdateNews, board: Notes
) -> None:
    lay(tmp_path, "1.0.0")
    write_report(tmp_path)
    bad = ModelVersion(version="1.1.0", manifest_sha256="0" * 64)
    refuse(tmp_path, bad, NOW + timedelta(minutes=5))
    news.tick()
    assert board.alerts == {ALERT: f"{NAME} 1.1.0 was refused: it is too slow"}
    told = board.updates[-1].last_failure
    assert told is not None
    assert told.at == NOW + timedelta(minutes=5)
    # The sync after it says whether that version is still on offer.
    write_report(tmp_path, NOW + timedelta(hours=6), alert=f"{NAME} 1.1.0 was refused: too slow")
    news.tick()
    assert board.alerts == {ALERT: f"{NAME} 1.1.0 was refused: too slow"}
    write_report(tmp_path, NOW + timedelta(hours=12))
    news.tick()
    assert board.alerts == {}


def test_a_rejected_version_without_any_sync_is_told(
    tmp_path: Path, news: UpdateNews, board: Notes
) -> None:
    bad = ModelVersion(version="1.1.0", manifest_sha256="0" * 64)
    refuse(tmp_path, bad, NOW)
    news.tick()
    assert ALERT in board.alerts


def test_files_that_make_no_sense_are_no_news(
    tmp_path: Path, news: UpdateNews, board: Notes
) -> None:
    report.path(tmp_path).parent.mkdir()
    report.path(tmp_path).write_text("{")
    state.path(tmp_path).write_text("[]")
    news.tick()
    assert board.updates[-1].synced is None
    assert board.alerts == {}
