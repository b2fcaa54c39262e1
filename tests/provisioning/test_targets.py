from __future__ import annotations

from pathlib import Path

import pytest

from fer_agent.errors import UsageError
from fer_provisioning.targets import LOCAL, parse_target, read_inventory

INVENTORY = """
[defaults]
user = "pi"
config = "fleet.toml"
settings = { mqtt.broker = "mqtts://hub:8883", detector.score = 0.5 }
secrets = { mqtt-password = "secrets/mqtt" }

[groups.hall]
port = 2222
settings = { deployment.context = "public", detector.score = 0.7 }

[hosts.camera-1]
address = "camera-1.local"
groups = ["hall"]
settings = { camera.main.source = "/dev/video2" }

[hosts."10.0.0.7"]
user = "root"
key = "~/.ssh/fleet"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "boards.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "user", "address", "port"),
    [
        ("camera-1.local", None, "camera-1.local", None),
        ("pi@camera-1.local", "pi", "camera-1.local", None),
        ("pi@10.0.0.5:2222", "pi", "10.0.0.5", 2222),
        ("root@[fe80::1%eth0]:22", "root", "fe80::1%eth0", 22),
    ],
)
def test_target_is_read_as_ssh_reads_it(
    text: str, user: str | None, address: str, port: int | None
) -> None:
    target = parse_target(text)
    assert (target.name, target.user, target.address, target.port) == (text, user, address, port)


@pytest.mark.parametrize("text", ["", "-oProxyCommand=x", "a b", "host:99999", "host:0", "u@"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_target(text)


def test_local_is_this_machine() -> None:
    assert parse_target("@local").address is None
    assert parse_target("@local").name == LOCAL


def test_host_takes_from_its_groups_and_the_defaults(tmp_path: Path) -> None:
    one, two = read_inventory(write(tmp_path, INVENTORY))
    assert (one.name, one.address, one.user, one.port) == (
        "camera-1",
        "camera-1.local",
        "pi",
        2222,
    )
    assert one.config == tmp_path / "fleet.toml"
    assert one.settings == {
        "mqtt.broker": "mqtts://hub:8883",
        "detector.score": 0.7,
        "deployment.context": "public",
        "camera.main.source": "/dev/video2",
    }
    assert one.secrets == {"mqtt-password": tmp_path / "secrets/mqtt"}
    assert (two.user, two.address, two.port) == ("root", "10.0.0.7", None)
    assert two.key == Path.home() / ".ssh/fleet"
    assert two.settings["detector.score"] == 0.5


def test_hosts_and_groups_can_be_chosen(tmp_path: Path) -> None:
    path = write(tmp_path, INVENTORY)
    assert [one.name for one in read_inventory(path, only=["hall"])] == ["camera-1"]
    assert [one.name for one in read_inventory(path, only=["10.0.0.7"])] == ["10.0.0.7"]
    with pytest.raises(UsageError, match="no host or group cellar"):
        read_inventory(path, only=["cellar"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[hosts]\n", "hosts"),
        ("[hosts.a]\nadress = 'b'\n", "adress"),
        ("[hosts.a]\nport = 0\n", "port"),
        ("[hosts.a]\ngroups = ['hall']\n", "group 'hall'"),
        ("[hosts.a\n", "not TOML"),
        ("[hosts.a]\nsecrets = { '../x' = 'y' }\n", "secrets"),
    ],
)
def test_wrong_inventory_is_refused_with_the_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_inventory(write(tmp_path, text))


def test_missing_inventory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_inventory(tmp_path / "none.toml")
