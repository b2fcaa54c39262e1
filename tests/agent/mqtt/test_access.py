"""Versions of MQTT, credentials, access lists, TLS, and the settings for them."""

from __future__ import annotations

import gc
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from publishing import (
    ONLINE,
    QUICK,
    delivered,
    event,
    publishing,
    states,
    validate_all,
)

from fer_agent.config.model import MqttConfig
from fer_agent.errors import ConfigError
from fer_agent.mqtt.embedded_broker import EmbeddedBroker
from fer_agent.mqtt.messages import Identity, uuid7
from fer_agent.mqtt.publisher import MqttPublisher, SessionTiming
from fer_agent.mqtt.settings import BrokerSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.broker

IMPATIENT = replace(QUICK, connect_s=1)
"""For a broker that keeps silent when it is asked in MQTT 5."""


def test_a_broker_that_speaks_only_3_1_1_is_understood(
    subscribe: Callable[..., Any], wait_for: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    with EmbeddedBroker() as broker:
        port = int(broker.uri.rsplit(":", 1)[1])
        subscriber = subscribe(port, version="3.1.1")
        with caplog.at_level(logging.INFO), publishing(port, timing=IMPATIENT) as publisher:
            publisher.camera("front").status(ONLINE)
            for _ in range(50):
                publisher.camera("front").publish(event())
            wait_for(lambda: len(delivered(subscriber)) == 50)
        wait_for(lambda: "stopped" in states(subscriber))
        validate_all(subscriber)
        subscriber.close()
    assert "with MQTT 3.1.1" in caplog.text


def test_the_configured_version_is_the_only_one_spoken(
    wait_for: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    with EmbeddedBroker() as broker:
        port = int(broker.uri.rsplit(":", 1)[1])
        timing = SessionTiming(first_wait_s=0.05, connect_s=0.3, stop_s=0.5)
        with publishing(port, timing=timing, protocol="5") as publisher:
            wait_for(lambda: caplog.text.count("does not answer") > 0)
            assert not publisher.connected
        with publishing(port, protocol="3.1.1") as publisher:
            wait_for(lambda: publisher.connected)


def test_refused_credentials_wait_longest_warn_once_and_are_never_connected(
    mosquitto: Callable[..., Any],
    passwords: tuple[str, ...],
    wire: Callable[[int], Any],
    wait_for: Callable[..., None],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = mosquitto(*passwords)
    line = wire(broker.port)
    secret = tmp_path / "secret"
    secret.write_text("wrong-password\n")
    timing = replace(QUICK, first_wait_s=0.01, longest_wait_s=0.5)
    with (
        caplog.at_level(logging.DEBUG),
        publishing(line.port, timing=timing, username="fer", password_file=secret) as publisher,
    ):
        wait_for(lambda: line.accepted >= 2)
        assert not publisher.connected
        # The waits are 0.25 to 0.5 s; doubling would have begun at 0.01 s.
        assert line.accepted_s[1] - line.accepted_s[0] >= 0.25
    warnings = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "refuses user 'fer'" in warnings[0].getMessage()
    assert "wrong-password" not in caplog.text
    assert publisher.reconnects == 0


def test_the_right_password_lets_in(
    mosquitto: Callable[..., Any],
    passwords: tuple[str, ...],
    tmp_path: Path,
    wait_for: Callable[..., None],
) -> None:
    broker = mosquitto(*passwords)
    secret = tmp_path / "secret"
    secret.write_text("right\n")
    with publishing(broker.port, username="fer", password_file=secret) as publisher:
        wait_for(lambda: publisher.connected)
    assert "right" not in repr(
        BrokerSettings.load(MqttConfig(username="fer", password_file=secret))
    )


def test_messages_the_broker_refuses_are_counted_and_do_not_stop_others(
    mosquitto: Callable[..., Any],
    subscribe: Callable[..., Any],
    wait_for: Callable[..., None],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rules = tmp_path / "acl"
    rules.write_text("topic read fer/#\ntopic write fer/v1/+/status\n")
    broker = mosquitto("allow_anonymous true", f"acl_file {rules}")
    subscriber = subscribe(broker.port)
    with caplog.at_level(logging.INFO), publishing(broker.port) as publisher:
        for _ in range(3):
            publisher.camera("front").publish(event())
        wait_for(lambda: publisher.counters().dropped == 3)
    wait_for(lambda: states(subscriber)[-1:] == ["stopped"])
    assert caplog.text.count("the broker refused a message: Not authorized") == 1


def tls_lines(certificates: Any) -> tuple[str, ...]:
    return (
        "allow_anonymous true",
        f"cafile {certificates.ca}",
        f"certfile {certificates.server}",
        f"keyfile {certificates.server_key}",
    )


def test_tls_with_a_given_ca(
    mosquitto: Callable[..., Any], certificates: Any, wait_for: Callable[..., None]
) -> None:
    broker = mosquitto(*tls_lines(certificates))
    with publishing(broker.port, tls=True, ca_file=certificates.ca) as publisher:
        for _ in range(200):
            publisher.camera("front").publish(event())
        wait_for(lambda: publisher.counters().acknowledged == 200)


# paho lets the socket of a failed handshake go without closing it; the collector closes it.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_broker_of_an_unknown_ca_is_not_trusted(
    mosquitto: Callable[..., Any],
    certificates: Any,
    wait_for: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = mosquitto(*tls_lines(certificates))
    with publishing(broker.port, tls=True) as publisher:
        wait_for(lambda: "is not trusted" in caplog.text)
        assert not publisher.connected
    gc.collect()
    assert "mqtt.ca_file" in caplog.text


def test_a_broker_that_wants_a_client_certificate(
    mosquitto: Callable[..., Any],
    certificates: Any,
    wait_for: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = mosquitto(*tls_lines(certificates), "require_certificate true")
    with publishing(broker.port, tls=True, ca_file=certificates.ca) as publisher:
        wait_for(lambda: "client certificate" in caplog.text)
        assert not publisher.connected
    with publishing(
        broker.port,
        tls=True,
        ca_file=certificates.ca,
        client_cert_file=certificates.client,
        client_key_file=certificates.client_key,
    ) as publisher:
        wait_for(lambda: publisher.connected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"password_file": "secret"}, "username"),
        ({"ca_file": "ca.pem"}, "without TLS"),
        ({"broker": "mqtts://b", "ca_file": "none.pem"}, "CA certificates"),
        ({"broker": "mqtts://b", "ca_file": "secret"}, "CA certificates"),
        ({"broker": "mqtts://b", "client_cert_file": "secret"}, "client certificate"),
        ({"broker": "mqtts://b", "client_key_file": "secret"}, "client_cert_file"),
        ({"username": "fer", "password_file": "none"}, "cannot read the secret"),
        ({"username": "fer", "password_file": "empty"}, "is empty"),
    ],
)
def test_unusable_settings_are_configuration_errors(
    settings: dict[str, str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_text("no certificate")
    (tmp_path / "empty").touch()

    with pytest.raises(ConfigError, match=message) as caught:
        MqttPublisher(MqttConfig(**settings), Identity("fer-1", uuid7()))

    assert caught.value.remedy
