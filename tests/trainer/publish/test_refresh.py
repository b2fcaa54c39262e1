"""Expiry of signatures, and the timer that renews them with the online keys alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tuf.api.exceptions import ExpiredMetadataError

if TYPE_CHECKING:
    from pathlib import Path

    from publishing_machines import Device, Operator


def test_refresh_needs_no_offline_key_and_no_password(
    publisher: Operator, device: Device, tiny: Path
) -> None:
    publisher.must("add", tiny)
    for path in publisher.keys.glob("*.pem"):
        path.unlink()

    done = publisher.call(
        "refresh", "--repository", publisher.repository, "--keys", publisher.online
    )

    assert (done.code, done.err) == (0, "")
    assert publisher.versions == {"root": 1, "targets": 2, "snapshot": 2, "timestamp": 3}
    assert device.sync() == ["tiny 1.0.0"]


def test_a_device_refuses_a_stale_timestamp_until_it_is_refreshed(
    publisher: Operator, device: Device
) -> None:
    when = publisher.later(days=8)
    with pytest.raises(ExpiredMetadataError):
        device.sync(at=when)

    publisher.must("refresh", keys=publisher.online)

    assert device.sync(at=when) == []


def test_refresh_renews_the_snapshot_when_half_its_time_is_over(publisher: Operator) -> None:
    publisher.later(days=14)
    publisher.must("refresh", keys=publisher.online)
    early = publisher.versions
    publisher.later(days=16)
    publisher.must("refresh", keys=publisher.online)

    assert (early["snapshot"], publisher.versions["snapshot"]) == (1, 2)


def test_refresh_reminds_of_offline_signatures_that_expire_soon(publisher: Operator) -> None:
    publisher.later(days=160)

    done = publisher.must("refresh", keys=publisher.online)

    assert (
        "note: targets expires in 19 days: `fer-train publish refresh --also targets`" in done.err
    )


def test_refresh_fails_where_devices_refuse_in_spite_of_it(publisher: Operator) -> None:
    publisher.later(days=181)

    done = publisher.run("refresh", keys=publisher.online)

    assert done.code == 1
    assert "fer-train: targets has expired on" in done.err
    assert publisher.versions["timestamp"] == 2  # a fresh timestamp hides no other fault


def test_expired_targets_are_renewed_with_their_key(publisher: Operator, device: Device) -> None:
    when = publisher.later(days=181)

    publisher.must("refresh", "--also", "targets")

    assert device.sync(at=when) == []
    assert publisher.versions == {"root": 1, "targets": 2, "snapshot": 2, "timestamp": 2}


def test_nothing_is_built_on_an_expired_root_until_it_is_renewed(
    publisher: Operator, device: Device, tiny: Path
) -> None:
    when = publisher.later(days=366)
    before = publisher.files()
    for words in (("add", tiny), ("refresh",), ("retire", "tiny", "1.0.0")):
        done = publisher.run(*words)
        assert done.code == 76
        assert "root 1 has expired on" in done.err
        assert "refresh --also root" in done.err
    assert publisher.files() == before

    publisher.must("refresh", "--also", "root", "--also", "targets")
    publisher.must("add", tiny)

    assert device.sync(at=when) == ["tiny 1.0.0"]


def test_online_roles_are_not_named_with_also(publisher: Operator) -> None:
    done = publisher.run("refresh", "--also", "snapshot")
    assert done.code == 2
    assert "snapshot is renewed anyway" in done.err


@pytest.mark.parametrize("setting", ["timestamp", "timestamp=x", "timestamp=0", "clock=3"])
def test_expiry_settings_that_mean_nothing_are_refused(
    new_publisher: Operator, setting: str
) -> None:
    done = new_publisher.run("init", "--expires", setting)
    assert done.code == 2
    assert not new_publisher.keys.exists()
