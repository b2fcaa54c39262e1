"""What `fer-agent mqtt test` finds out about the way to the broker."""

from __future__ import annotations

import gc
import json
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from fer_agent.cli import app
from fer_agent.config.model import MqttConfig
from fer_agent.errors import BrokerError, CredentialsError
from fer_agent.mqtt.check import check
from fer_agent.mqtt.embedded_broker import EmbeddedBroker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.broker


def config(port: int, *, scheme: str = "mqtt", **settings: Any) -> MqttConfig:
    return MqttConfig(broker=f"{scheme}://127.0.0.1:{port}", **settings)


def test_a_good_way_is_reported_with_version_and_round_trip(
    mosquitto: Callable[..., Any], tmp_path: Path
) -> None:
    before = set(threading.enumerate())
    broker = mosquitto()

    report = check(config(broker.port), "fer-1")

    assert report.authorised
    assert (report.protocol, report.tls, report.problem) == ("5", None, "")
    assert report.round_trip_ms is not None
    assert 0 < report.round_trip_ms < 5_000
    assert report.topic.startswith("fer/v1/fer-1/test/")
    assert any("MQTT 5" in line for line in report.lines())
    assert set(threading.enumerate()) == before
    here = ["--broker", f"mqtt://127.0.0.1:{broker.port}"]
    runner = CliRunner(env={"XDG_CONFIG_HOME": str(tmp_path)})
    content = json.loads(runner.invoke(app, ["mqtt", "test", "--json", *here]).stdout)
    assert (content["schema_version"], content["authorised"]) == (1, True)
    assert content["topic"].startswith("fer/v1/")


def test_it_does_not_disturb_who_listens_to_the_device(
    mosquitto: Callable[..., Any], subscribe: Callable[..., Any]
) -> None:
    broker = mosquitto()
    check(config(broker.port), "fer-1")

    late = subscribe(broker.port)

    assert not late.messages


def test_a_broker_of_3_1_1_only() -> None:
    with EmbeddedBroker() as broker:
        report = check(MqttConfig(broker=broker.uri), "fer-1")

    assert report.authorised
    assert report.protocol == "3.1.1"


def test_tls_and_user_are_named(
    mosquitto: Callable[..., Any],
    passwords: tuple[str, ...],
    certificates: Any,
    tmp_path: Path,
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("right")
    broker = mosquitto(
        *passwords,
        f"cafile {certificates.ca}",
        f"certfile {certificates.server}",
        f"keyfile {certificates.server_key}",
    )

    report = check(
        config(
            broker.port,
            scheme="mqtts",
            ca_file=certificates.ca,
            username="fer",
            password_file=secret,
        ),
        "fer-1",
    )

    assert report.authorised
    assert report.tls is not None
    assert report.tls.startswith("TLSv1.")
    assert report.username == "fer"
    assert "right" not in str(report)


def test_refused_credentials(
    mosquitto: Callable[..., Any], passwords: tuple[str, ...], tmp_path: Path
) -> None:
    broker = mosquitto(*passwords)
    secret = tmp_path / "secret"
    secret.write_text("wrong-password")

    with pytest.raises(CredentialsError, match="refuses user 'fer'") as caught:
        check(config(broker.port, username="fer", password_file=secret), "fer-1")

    assert caught.value.exit_code == 77
    assert "wrong-password" not in str(caught.value)
    with pytest.raises(CredentialsError, match="without a user name"):
        check(config(broker.port), "fer-1")


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_denied_topic_is_a_finding(
    mosquitto: Callable[..., Any], tmp_path: Path, protocol: str
) -> None:
    rules = tmp_path / "acl"
    rules.write_text("topic readwrite other/#\n")
    broker = mosquitto("allow_anonymous true", f"acl_file {rules}")

    report = check(config(broker.port, protocol=protocol), "fer-1", timeout_s=2)

    assert not report.authorised
    assert report.round_trip_ms is None
    assert ("refuses messages" if protocol == "5" else "did not send it back") in report.problem
    assert "fer/v1/fer-1/#" in report.remedy
    assert report.lines()[-1].strip() == report.remedy


def test_no_broker() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    with pytest.raises(BrokerError, match="cannot reach the broker") as caught:
        check(config(port), "fer-1")

    assert caught.value.exit_code == 69
    assert caught.value.remedy


def test_a_name_that_does_not_resolve() -> None:
    with pytest.raises(BrokerError, match=r"cannot reach the broker at nowhere\.invalid:1883"):
        check(MqttConfig(broker="mqtt://nowhere.invalid"), "fer-1")


def test_a_server_that_never_answers() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(BrokerError, match="does not answer"),
    ):
        check(config(silent.getsockname()[1]), "fer-1", timeout_s=0.3)


# paho lets the socket of a failed handshake go without closing it; the collector closes it.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_port_without_tls_is_told_apart(mosquitto: Callable[..., Any]) -> None:
    with pytest.raises(BrokerError, match="no TLS with the broker") as caught:
        check(config(mosquitto().port, scheme="mqtts"), "fer-1")
    assert "speaks TLS" in caught.value.remedy
    del caught
    gc.collect()
