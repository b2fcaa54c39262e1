"""Listening to agents, at a real mosquitto and at the embedded broker."""

from __future__ import annotations

import json
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any

import paho.mqtt.publish as mqtt_publish
import pytest

from fer_agent.config.model import MqttConfig
from fer_agent.errors import BrokerError, CredentialsError
from fer_agent.mqtt.embedded_broker import EmbeddedBroker
from fer_agent.watch.listener import ConnectionChange, ReceivedMessage, Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WAIT_S = 120.0


def publish(broker: Any, topic: str, payload: str, *, retain: bool = False) -> None:
    mqtt_publish.single(
        topic, payload, qos=1, retain=retain, hostname="127.0.0.1", port=broker.port
    )


@pytest.fixture
def watch() -> Iterator[Callable[[MqttConfig], Watcher]]:
    """A function that makes a watcher, which is closed with the test and leaves no thread."""
    before = set(threading.enumerate())
    watchers: list[Watcher] = []

    def make(config: MqttConfig) -> Watcher:
        watchers.append(Watcher(config, first_wait_s=0.05))
        return watchers[-1]

    yield make
    for watcher in watchers:
        watcher.close()
    assert set(threading.enumerate()) <= before


def next_message(watcher: Watcher) -> ReceivedMessage:
    while (arrived := watcher.next(WAIT_S)) is not None:
        if isinstance(arrived, ReceivedMessage):
            return arrived
    pytest.fail("no message came")


def next_news(watcher: Watcher) -> ConnectionChange:
    while (arrived := watcher.next(WAIT_S)) is not None:
        if isinstance(arrived, ConnectionChange):
            return arrived
    pytest.fail("no news of the link came")


@pytest.mark.broker
def test_it_hears_every_device_and_what_the_broker_kept(
    mosquitto: Callable[..., Any], watch: Callable[[MqttConfig], Watcher]
) -> None:
    broker = mosquitto()
    publish(broker, "fer/v1/one/cameras/front/emotion", "happy", retain=True)
    watcher = watch(MqttConfig(broker=broker.uri))
    watcher.connect()

    assert next_message(watcher) == ReceivedMessage(
        "fer/v1/one/cameras/front/emotion", b"happy", True
    )
    publish(broker, "somebody/else", "1")
    publish(broker, "fer/v1/two/status", '{"state": "online"}')
    assert next_message(watcher) == ReceivedMessage("fer/v1/two/status", b'{"state": "online"}')


@pytest.mark.broker
def test_it_connects_again_after_the_broker_was_gone(
    mosquitto: Callable[..., Any], watch: Callable[[MqttConfig], Watcher]
) -> None:
    broker = mosquitto()
    watcher = watch(MqttConfig(broker=broker.uri))
    watcher.connect()
    assert next_news(watcher).connected

    broker.end(signal.SIGKILL)
    assert not next_news(watcher).connected
    broker.start()
    assert next_news(watcher).connected

    publish(broker, "fer/v1/one/cameras/front/emotion", "sad")
    assert next_message(watcher).payload == b"sad"


@pytest.mark.broker
def test_wrong_credentials_are_refused_and_right_ones_taken(
    mosquitto: Callable[..., Any],
    watch: Callable[[MqttConfig], Watcher],
    passwords: tuple[str, ...],
    tmp_path: Path,
) -> None:
    secret = tmp_path / "secret"
    broker = mosquitto(*passwords)
    config = MqttConfig(broker=broker.uri, username="fer", password_file=secret)

    secret.write_text("wrong\n")
    with pytest.raises(CredentialsError) as caught:
        watch(config).connect()
    assert caught.value.exit_code == 77
    assert "wrong" not in str(caught.value)

    secret.write_text("right\n")
    watcher = watch(config)
    watcher.connect()
    assert next_news(watcher).connected


def test_a_broker_of_the_older_protocol_is_heard_too(
    watch: Callable[[MqttConfig], Watcher],
) -> None:
    with EmbeddedBroker() as broker:
        port = int(broker.uri.rpartition(":")[2])
        watcher = watch(MqttConfig(broker=broker.uri))
        watcher.connect()
        mqtt_publish.single("fer/v1/one/status", "x", qos=1, hostname="127.0.0.1", port=port)

        assert next_message(watcher).payload == b"x"
        watcher.close()


def test_no_broker_is_an_error_with_a_remedy(watch: Callable[[MqttConfig], Watcher]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        uri = f"mqtt://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(BrokerError, match=r"127\.0\.0\.1") as caught:
            watch(MqttConfig(broker=uri)).connect()

    assert caught.value.exit_code == 69
    assert caught.value.remedy


def test_stop_ends_the_arrivals(watch: Callable[[MqttConfig], Watcher]) -> None:
    with EmbeddedBroker() as broker:
        watcher = watch(MqttConfig(broker=broker.uri, protocol="3.1.1"))
        watcher.connect()
        watcher.stop()

        assert [type(arrived) for arrived in watcher.arrivals()] == [ConnectionChange]
        watcher.close()


@pytest.mark.parametrize(
    ("payload", "written"), [(b'{"a": 1}', {"a": 1}), (b"happy", "happy"), (b"", None)]
)
def test_a_message_is_one_line_of_json(payload: bytes, written: object) -> None:
    line = ReceivedMessage("fer/v1/a/b", payload, retained=True).as_json()

    assert "\n" not in line
    assert json.loads(line) == {
        "schema_version": 1,
        "topic": "fer/v1/a/b",
        "retained": True,
        "payload": written,
    }
