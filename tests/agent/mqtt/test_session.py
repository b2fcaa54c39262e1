"""The session against brokers that come, go, stall and break the protocol."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from publishing import (
    ONLINE,
    QUICK,
    content,
    delivered,
    event,
    publishing,
    states,
)

from fer_agent.config.model import MqttConfig
from fer_agent.mqtt.connection import WakeupSocket
from fer_agent.mqtt.publisher import SessionTiming

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.broker


def test_the_broker_may_be_down_at_start(
    mosquitto: Callable[..., Any], subscribe: Callable[..., Any], wait_for: Callable[..., None]
) -> None:
    broker = mosquitto()
    subscriber = subscribe(broker.port)
    broker.end()
    with publishing(broker.port) as publisher:
        for _ in range(5):
            publisher.camera("front").publish(event())
        assert not publisher.connected
        broker.start()
        wait_for(lambda: publisher.counters().acknowledged == 5)
        wait_for(lambda: delivered(subscriber) == [1, 2, 3, 4, 5])
        assert all(content(each)["data"]["replayed"] for each in subscriber.on("/events"))

        publisher.camera("front").publish(event())
        wait_for(lambda: len(delivered(subscriber)) == 6)
        assert not content(subscriber.on("/events")[-1])["data"]["replayed"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_broker_that_ends_under_load_costs_nothing_of_ours(
    mosquitto: Callable[..., Any],
    subscribe: Callable[..., Any],
    wait_for: Callable[..., None],
    how: signal.Signals,
) -> None:
    broker = mosquitto()
    subscriber = subscribe(broker.port)
    broker.save()
    with publishing(broker.port, outbox_events=2000) as publisher:
        cameras = [publisher.camera(name) for name in ("front", "back")]
        for number in range(1, 501):
            for camera in cameras:
                camera.publish(event())
            if number == 200:
                wait_for(lambda: publisher.counters().acknowledged >= 100)
                broker.end(how)
            if number == 300:
                broker.start()
        wait_for(lambda: publisher.counters().acknowledged == 1000)
        assert publisher.reconnects >= 1

    def sequences(camera: str) -> list[int]:
        received = subscriber.on(f"{camera}/events")
        return list(dict.fromkeys(int(content(each)["sequence"]) for each in received))

    wait_for(lambda: all(500 in sequences(camera) for camera in ("front", "back")))
    for camera in ("front", "back"):
        got = sequences(camera)
        assert got == sorted(got)
        # What a killed broker had confirmed and not yet handed over is its loss, not the agent's.
        sure = range(1 if how is signal.SIGTERM else 201, 501)
        assert set(sure) <= set(got)


def test_a_connection_cut_again_and_again_costs_nothing(
    mosquitto: Callable[..., Any],
    subscribe: Callable[..., Any],
    wire: Callable[[int], Any],
    wait_for: Callable[..., None],
) -> None:
    broker = mosquitto()
    subscriber = subscribe(broker.port)
    line = wire(broker.port)
    with publishing(line.port) as publisher:
        camera = publisher.camera("front")
        camera.status(ONLINE)
        for number in range(1, 301):
            camera.publish(event())
            if number % 100 == 0:
                wait_for(lambda: publisher.connected)
                line.cut()
        wait_for(lambda: publisher.counters().acknowledged == 300)
        assert publisher.reconnects >= 2
    wait_for(lambda: len(delivered(subscriber)) == 300)
    assert delivered(subscriber) == list(range(1, 301))
    wait_for(lambda: states(subscriber)[-1:] == ["stopped"])
    assert states(subscriber).count("offline") >= 2
    identifiers = [content(each)["id"] for each in subscriber.on("/events")]
    assert len(set(identifiers)) == 300


def test_a_broker_that_hangs_up_after_connect_is_asked_in_both_versions_with_back_off(
    mosquitto: Callable[..., Any],
    subscribe: Callable[..., Any],
    wire: Callable[[int], Any],
    wait_for: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = mosquitto()
    subscriber = subscribe(broker.port)
    line = wire(broker.port)
    line.hang_up_after_first_packet = True
    with caplog.at_level(logging.DEBUG), publishing(line.port) as publisher:
        publisher.camera("front").publish(event())
        wait_for(lambda: line.accepted >= 4)
        time.sleep(0.5)
        assert not publisher.connected
        # Pairs of attempts with waits of at least 0.025, 0.05, 0.1, 0.2, 0.2 s.
        assert line.accepted < 20
        line.hang_up_after_first_packet = False
        wait_for(lambda: delivered(subscriber) == [1])
    warnings = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "trying MQTT 3.1.1" in caplog.text


@pytest.mark.parametrize("stable_s", [0.0, 60.0])
def test_a_fault_is_a_warning_again_only_after_a_connection_that_lasted(
    stable_s: float,
    mosquitto: Callable[..., Any],
    wire: Callable[[int], Any],
    wait_for: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    line = wire(mosquitto().port)
    timing = replace(QUICK, stable_s=stable_s)
    with caplog.at_level(logging.WARNING), publishing(line.port, timing=timing) as publisher:
        for cut in range(1, 5):
            wait_for(lambda: publisher.connected)
            line.cut()
            wait_for(lambda cut=cut: publisher.reconnects == cut)
    faults = [each.getMessage() for each in caplog.records if "trying on" in each.getMessage()]
    assert len(faults) == (4 if stable_s == 0.0 else len(set(faults)))


def open_sockets() -> set[str]:
    """Return the sockets that this process has open."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the descriptor of this very listing
            found.add(str(path.readlink()))
    return {name for name in found if name.startswith("socket:")}


def test_neither_a_lost_connection_nor_a_stopped_publisher_keeps_a_socket_open(
    mosquitto: Callable[..., Any], wait_for: Callable[..., None]
) -> None:
    broker = mosquitto()
    before = open_sockets()
    with publishing(broker.port) as publisher:
        wait_for(lambda: publisher.connected)
        connected = open_sockets()
        broker.end()
        wait_for(lambda: not publisher.connected)
        broker.start()
        wait_for(lambda: publisher.connected)
        assert len(open_sockets()) == len(connected)
    assert open_sockets() == before


@contextmanager
def scripted(*replies: bytes) -> Iterator[tuple[int, list[float]]]:
    """A server that answers with one of these after the other, then only listens for a second.

    Yields its port, and the times at which clients came.
    """
    came: list[float] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            came.append(time.monotonic())
            with connection:
                connection.settimeout(1)
                with suppress(OSError):
                    for reply in replies:
                        connection.recv(1024)
                        connection.sendall(reply)
                    # Closing with something unread would reset the connection.
                    while connection.recv(1024):
                        pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1], came
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


CONNACK_5 = b"\x20\x03\x00\x00\x00"


def test_a_peer_that_is_no_broker_is_survived(wait_for: Callable[..., None]) -> None:
    with (
        scripted(b"HTTP/1.1 400 Bad Request\r\n\r\n") as (port, came),
        publishing(port, timing=SessionTiming(first_wait_s=0.05, connect_s=0.3)) as publisher,
    ):
        wait_for(lambda: len(came) >= 4)
        assert not publisher.connected


def test_rubbish_from_a_broker_ends_only_the_connection(
    wait_for: Callable[..., None],
) -> None:
    with scripted(CONNACK_5 + b"\x40\x01\x00") as (port, came), publishing(port) as publisher:
        wait_for(lambda: len(came) >= 3)
        assert publisher.reconnects >= 1


def test_being_taken_over_takes_the_longest_wait(
    wait_for: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    timing = SessionTiming(first_wait_s=0.01, longest_wait_s=1.0, stop_s=0.5)
    disconnect = b"\xe0\x02\x8e\x00"
    with (
        scripted(CONNACK_5, disconnect) as (port, came),
        publishing(port, timing=timing),
    ):
        wait_for(lambda: len(came) >= 2)
    assert came[1] - came[0] >= 0.5
    assert "device.id" in caplog.text


def test_a_rival_with_our_id_makes_the_waits_longer(
    mosquitto: Callable[..., Any], wire: Callable[[int], Any], wait_for: Callable[..., None]
) -> None:
    broker = mosquitto()
    line = wire(broker.port)
    with publishing(line.port) as publisher:
        wait_for(lambda: publisher.connected)
        rival = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id="fer-agent-fer-1",
            protocol=MQTTProtocolVersion.MQTTv5,
        )
        rival.reconnect_delay_set(1, 1)
        rival.connect("127.0.0.1", broker.port)
        rival.loop_start()
        wait_for(lambda: publisher.reconnects >= 1)
        rival.disconnect()
        rival.loop_stop()
        wait_for(lambda: publisher.connected)


def test_a_stalled_connection_neither_blocks_publishing_nor_the_stop(
    mosquitto: Callable[..., Any], wire: Callable[[int], Any], wait_for: Callable[..., None]
) -> None:
    broker = mosquitto()
    line = wire(broker.port)
    timing = SessionTiming(first_wait_s=0.05, stop_s=0.6)
    with publishing(line.port, timing=timing) as publisher:
        wait_for(lambda: publisher.connected)
        line.stalled = True
        for _ in range(2000):
            publisher.camera("front").publish(event())
        begun_s = time.monotonic()
        publisher.stop()
        # Not after the keep-alive, when the connection would have been found dead.
        assert time.monotonic() - begun_s < MqttConfig().keepalive_s / 2
        counters = publisher.counters()
        line.stalled = False
    assert counters.published == 2000
    assert counters.dropped == 1000
    assert counters.queued == 1000


def test_a_silent_connection_is_found_dead_by_its_keep_alive(
    mosquitto: Callable[..., Any], wire: Callable[[int], Any], wait_for: Callable[..., None]
) -> None:
    broker = mosquitto()
    line = wire(broker.port)
    with publishing(line.port, keepalive_s=1) as publisher:
        wait_for(lambda: publisher.connected)
        line.stalled = True
        wait_for(lambda: not publisher.connected)
        line.stalled = False
        wait_for(lambda: publisher.connected)


def test_events_cause_no_attempt_to_connect_before_its_time(
    wire: Callable[[int], Any],
    port: int,
    wait_for: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    line = wire(port)  # nothing listens behind it
    timing = SessionTiming(first_wait_s=60.0, stop_s=0.1)
    with publishing(line.port, timing=timing) as publisher:
        wait_for(lambda: "trying on" in caplog.text)
        attempts = line.accepted
        for _ in range(30):
            publisher.camera("front").publish(event())
        time.sleep(0.3)
        assert line.accepted == attempts
        begun_s = time.monotonic()
    assert time.monotonic() - begun_s < timing.first_wait_s / 2


def test_wake_ups_are_gathered_until_drained() -> None:
    wakeup = WakeupSocket()
    for _ in range(30):
        wakeup.wake()
    with socket.socket(fileno=os.dup(wakeup.fileno())) as receiver:
        assert receiver.recv(100) == b"\0"
    wakeup.drain()
    wakeup.wake()
    begun_s = time.monotonic()
    wakeup.wait(60)
    assert time.monotonic() - begun_s < 30
    wakeup.close()
    wakeup.wake()
