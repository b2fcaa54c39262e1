"""The access list that docs/fleet.md recommends, in a real broker."""

from __future__ import annotations

import subprocess
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from fer_agent.config.model import MqttConfig
from fer_agent.mqtt.check import check

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.broker


@pytest.fixture
def broker(
    root: Path,
    mosquitto: Callable[..., Any],
    require_program: Callable[[str], Path],
    tmp_path: Path,
) -> Any:
    """A broker with the manual's access list, and one device as its user."""
    manual = (root / "docs/fleet.md").read_text()
    begin = manual.index("    # acl_file")
    acl = tmp_path / "acl"
    acl.write_text(textwrap.dedent(manual[begin : manual.index("\n\n", begin)]) + "\n")
    users = tmp_path / "users"
    users.touch()
    subprocess.run(
        [require_program("mosquitto_passwd"), "-b", users, "fer-hall", "right"],
        check=True,
        capture_output=True,
    )
    (tmp_path / "password").write_text("right")
    return mosquitto("allow_anonymous false", f"password_file {users}", f"acl_file {acl}")


def test_device_may_use_its_own_topics_and_no_others(broker: Any, tmp_path: Path) -> None:
    config = MqttConfig(broker=broker.uri, username="fer-hall", password_file=tmp_path / "password")
    assert check(config, "fer-hall", timeout_s=60.0).problem == ""
    assert "Not authorized" in check(config, "fer-cellar", timeout_s=60.0).problem
