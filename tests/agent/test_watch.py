"""Listening to agents, at a real mosquitto and at the embedded broker."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import paho.mqtt.publish as mqtt_publish
import pytest

from fer_agent.config import MqttConfig
from fer_agent.embedded_broker import EmbeddedBroker
from fer_agent.errors import BrokerError, CredentialsError
from fer_agent.watch import LinkNews, Received, Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WAIT_S = 15.0


class Mosquitto:
    """A mosquitto on a free loopback port, which keeps its port over restarts."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._program = program
        self._config = folder / "mosquitto.conf"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self, *lines: str) -> None:
        self._config.write_text(
            "\n".join([f"listener {self.port} 127.0.0.1", "user root", *lines]) + "\n"
        )
        self._process = subprocess.Popen(
            [self._program, "-c", self._config], stderr=subprocess.DEVNULL
        )
        deadline_s = time.monotonic() + WAIT_S
        while time.monotonic() < deadline_s:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        pytest.fail("mosquitto did not start")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def publish(self, topic: str, payload: str, *, retain: bool = False) -> None:
        mqtt_publish.single(
            topic, payload, qos=1, retain=retain, hostname="127.0.0.1", port=self.port
        )


@pytest.fixture
def mosquitto(require_program: Callable[[str], Path], tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(require_program("mosquitto"), tmp_path)
    yield broker
    broker.kill()


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


def next_message(watcher: Watcher) -> Received:
    while (arrived := watcher.next(WAIT_S)) is not None:
        if isinstance(arrived, Received):
            return arrived
    pytest.fail("no message came")


def next_news(watcher: Watcher) -> LinkNews:
    while (arrived := watcher.next(WAIT_S)) is not None:
        if isinstance(arrived, LinkNews):
            return arrived
    pytest.fail("no news of the link came")


@pytest.mark.broker
def test_it_hears_every_device_and_what_the_broker_kept(
    mosquitto: Mosquitto, watch: Callable[[MqttConfig], Watcher]
) -> None:
    mosquitto.start("allow_anonymous true")
    mosquitto.publish("fer/v1/one/cameras/front/emotion", "happy", retain=True)
    watcher = watch(MqttConfig(broker=mosquitto.uri))
    watcher.connect()

    assert next_message(watcher) == Received("fer/v1/one/cameras/front/emotion", b"happy", True)
    mosquitto.publish("somebody/else", "1")
    mosquitto.publish("fer/v1/two/status", '{"state": "online"}')
    assert next_message(watcher) == Received("fer/v1/two/status", b'{"state": "online"}')


@pytest.mark.broker
def test_it_connects_again_after_the_broker_was_gone(
    mosquitto: Mosquitto, watch: Callable[[MqttConfig], Watcher]
) -> None:
    mosquitto.start("allow_anonymous true")
    watcher = watch(MqttConfig(broker=mosquitto.uri))
    watcher.connect()
    assert next_news(watcher).connected

    mosquitto.kill()
    assert not next_news(watcher).connected
    mosquitto.start("allow_anonymous true")
    assert next_news(watcher).connected

    mosquitto.publish("fer/v1/one/cameras/front/emotion", "sad")
    assert next_message(watcher).payload == b"sad"


@pytest.mark.broker
def test_wrong_credentials_are_refused_and_right_ones_taken(
    mosquitto: Mosquitto,
    watch: Callable[[MqttConfig], Watcher],
    require_program: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    users, secret = tmp_path / "users", tmp_path / "secret"
    subprocess.run(
        [require_program("mosquitto_passwd"), "-b", "-c", users, "ada", "right"], check=True
    )
    mosquitto.start("allow_anonymous false", f"password_file {users}")
    config = MqttConfig(broker=mosquitto.uri, username="ada", password_file=secret)

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

        assert [type(arrived) for arrived in watcher.arrivals()] == [LinkNews]
        watcher.close()


@pytest.mark.parametrize(
    ("payload", "written"), [(b'{"a": 1}', {"a": 1}), (b"happy", "happy"), (b"", None)]
)
def test_a_message_is_one_line_of_json(payload: bytes, written: object) -> None:
    line = Received("fer/v1/a/b", payload, retained=True).as_json()

    assert "\n" not in line
    assert json.loads(line) == {
        "schema_version": 1,
        "topic": "fer/v1/a/b",
        "retained": True,
        "payload": written,
    }
