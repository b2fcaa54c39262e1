"""What time it is at least, and that python-tuf's client judges expiry by it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from simulated_repository import SimulatedRepository
from tuf.api.exceptions import ExpiredMetadataError
from tuf.ngclient import Updater

from fer_agent.updates.trusted_time import (
    BUILD_TIME,
    TrustedTime,
    UnknownClientError,
    set_reference_time,
)

if TYPE_CHECKING:
    from pathlib import Path

    from web_server import WebServer

EARLY = datetime(1970, 1, 2, tzinfo=timezone.utc)
LATE = BUILD_TIME + timedelta(days=500)


def clock(path: Path, shows: datetime, *, synced: bool | None) -> TrustedTime:
    return TrustedTime(path / "trusted-time.json", lambda: shows, lambda: synced)


def test_a_synchronised_clock_is_believed(tmp_path: Path) -> None:
    assert clock(tmp_path, LATE, synced=True).read() == LATE


@pytest.mark.parametrize("synced", [False, None])
@pytest.mark.parametrize("shows", [EARLY, LATE])
def test_a_clock_that_nothing_keeps_right_is_not_believed(
    tmp_path: Path, shows: datetime, synced: bool | None
) -> None:
    assert clock(tmp_path, shows, synced=synced).read() == BUILD_TIME


def test_a_synchronised_clock_before_the_build_is_not_believed(tmp_path: Path) -> None:
    assert clock(tmp_path, EARLY, synced=True).read() == BUILD_TIME


def test_the_last_trusted_time_is_remembered_and_never_goes_back(tmp_path: Path) -> None:
    lost = clock(tmp_path, EARLY, synced=False)
    lost.keep(LATE)
    assert lost.read() == LATE
    lost.keep(LATE - timedelta(days=1))
    assert lost.read() == LATE
    assert clock(tmp_path, LATE - timedelta(days=1), synced=True).read() == LATE


@pytest.mark.parametrize("content", [b"", b"{", b'{"schema_version": 2}', b"\xff"])
def test_a_damaged_memory_is_no_memory(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "trusted-time.json").write_bytes(content)
    assert clock(tmp_path, LATE, synced=True).read() == LATE
    assert clock(tmp_path, LATE, synced=False).read() == BUILD_TIME


def updater(folder: Path, server: WebServer, owner: SimulatedRepository) -> Updater:
    folder.mkdir()
    return Updater(
        str(folder), f"{server.url}/metadata", bootstrap=owner.trust_anchor()
    )  # python-tuf's own fetcher: nothing of ours but the adapter


@pytest.mark.parametrize("day", [0, 6.9])
def test_the_client_judges_by_the_time_it_is_given_and_not_by_the_systems(
    tmp_path: Path, server: WebServer, day: float
) -> None:
    # A week's timestamp of long ago: expired by every system's clock.
    past = datetime(2020, 1, 1, tzinfo=timezone.utc)
    owner = SimulatedRepository(past)
    server.site = owner.site
    plain = updater(tmp_path / "plain", server, owner)
    with pytest.raises(ExpiredMetadataError):
        plain.refresh()
    told = updater(tmp_path / "told", server, owner)
    set_reference_time(told, past + timedelta(days=day))
    told.refresh()


def test_the_client_finds_expired_what_the_system_does_not(
    tmp_path: Path, server: WebServer
) -> None:
    now = datetime.now(timezone.utc).replace(microsecond=0)
    owner = SimulatedRepository(now)
    server.site = owner.site
    updater(tmp_path / "plain", server, owner).refresh()
    told = updater(tmp_path / "told", server, owner)
    set_reference_time(told, now + timedelta(days=8))
    with pytest.raises(ExpiredMetadataError):
        told.refresh()


@pytest.mark.parametrize(
    "inside", [{}, {"_trusted_set": None}, {"_trusted_set": SimpleNamespace(reference_time="now")}]
)
def test_a_client_that_keeps_its_time_elsewhere_is_refused(inside: dict[str, Any]) -> None:
    moved: Any = SimpleNamespace(**inside)
    with pytest.raises(UnknownClientError, match="reference_time"):
        set_reference_time(moved, LATE)
