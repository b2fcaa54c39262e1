"""The broker inside the demo's process."""

from __future__ import annotations

import sys
import threading
from queue import SimpleQueue
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from fer_agent.errors import BrokerError, MissingExtraError
from fer_agent.mqtt import embedded_broker
from fer_agent.mqtt.embedded_broker import EmbeddedBroker


def test_it_carries_a_message_from_one_client_to_another() -> None:
    before = set(threading.enumerate())
    arrived: SimpleQueue[bytes] = SimpleQueue()
    with EmbeddedBroker() as broker:
        client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv311)
        client.on_subscribe = lambda *_: client.publish("fer/v1/a/status", b"here", qos=1)
        client.on_connect = lambda *_: client.subscribe("fer/v1/#", qos=1)
        client.on_message = lambda _client, _userdata, message: arrived.put(message.payload)
        client.connect("127.0.0.1", urlsplit(broker.uri).port or 0)
        client.loop_start()

        assert arrived.get(timeout=60) == b"here"

        client.disconnect()
        client.loop_stop()
    assert set(threading.enumerate()) == before


def test_two_brokers_stand_side_by_side() -> None:
    with EmbeddedBroker() as one, EmbeddedBroker() as other:
        assert one.uri != other.uri


def test_without_its_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "amqtt.broker", None)

    with pytest.raises(MissingExtraError, match="amqtt") as caught, EmbeddedBroker():
        pass

    assert "fer-agent[broker]" in caught.value.remedy
    assert caught.value.exit_code == 69


def test_a_port_that_cannot_be_taken_is_a_broker_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedBroker() as first:
        port = urlsplit(first.uri).port
        # No test can take the port by chance between the broker's look and its listening.
        monkeypatch.setattr(embedded_broker, "_free_port", lambda: port)
        with pytest.raises(BrokerError, match="did not start") as caught, EmbeddedBroker():
            pass

    assert caught.value.exit_code == 69
