"""The MQTT session, against real brokers that come, go, refuse and hang up."""

from __future__ import annotations

import gc
import json
import logging
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jsonschema
import numpy as np
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from fer_agent.config.model import MqttConfig
from fer_agent.errors import ConfigError
from fer_agent.mqtt import schemas
from fer_agent.mqtt.dialer import Backoff
from fer_agent.mqtt.embedded_broker import EmbeddedBroker
from fer_agent.mqtt.messages import Identity, parse_topic, uuid7
from fer_agent.mqtt.payloads import HealthPayload, InfoPayload, ModelInfo, Models
from fer_agent.mqtt.publisher import MqttPublisher, Timing
from fer_agent.mqtt.settings import BrokerSettings
from fer_agent.vision.records import CameraState, CameraStatus, EmotionEvent, EventKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.broker

LABELS = ("angry", "happy", "neutral")
QUICK = Timing(first_wait_s=0.05, longest_wait_s=0.4, stable_s=60, connect_s=20, stop_s=20)
IMPATIENT = replace(QUICK, connect_s=1)
"""For a broker that keeps silent when it is asked in MQTT 5."""
ONLINE = CameraStatus(CameraState.ONLINE)
OFFLINE = CameraStatus(CameraState.OFFLINE, "cable pulled")


def event(
    kind: EventKind = EventKind.UPDATED, track_id: int = 1, emotion: str = "happy"
) -> EmotionEvent:
    now_ns = time.monotonic_ns()
    return EmotionEvent(
        kind=kind,
        track_id=track_id,
        captured_ns=now_ns,
        emotion=emotion,
        confidence=0.8,
        labels=LABELS,
        probs=np.array([0.1, 0.8, 0.1], np.float32),
        xyxy=np.array([10, 10, 90, 90], np.float32),
        frame_size=(640, 480),
        started_ns=now_ns - 1_000_000,
    )


def information(identity: Identity) -> InfoPayload:
    return InfoPayload(
        agent_version="1",
        python_version="3",
        os="Linux",
        board="test",
        runtime="none",
        models=Models(classifier=ModelInfo(name="net", sha256="ab" * 32)),
        cameras=("front",),
        config_sha256="cd" * 32,
        deployment_context="research",
        session=identity.session,
    )


def health(publisher: MqttPublisher) -> HealthPayload:
    return HealthPayload(
        session=uuid7(),
        time="2026-01-01T00:00:00Z",
        uptime_s=1,
        outbox=publisher.counters().outbox(),
    )


@contextmanager
def publishing(
    port: int, *, timing: Timing = QUICK, tls: bool = False, **settings: Any
) -> Iterator[MqttPublisher]:
    """A started publisher that is stopped at the end and leaves no thread behind."""
    before = publisher_threads()
    scheme = "mqtts" if tls else "mqtt"
    config = MqttConfig(broker=f"{scheme}://127.0.0.1:{port}", **settings)
    identity = Identity("fer-1", uuid7())
    publisher = MqttPublisher(config, identity, information(identity), timing=timing)
    publisher.start()
    try:
        yield publisher
    finally:
        publisher.stop()
        # A thread that is still inside an attempt to connect ends with it.
        for thread in publisher_threads() - before:
            thread.join(60)
        assert publisher_threads() == before


def publisher_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "mqtt-publisher"}


def content(message: Any) -> Any:
    return json.loads(message.payload)


def delivered(subscriber: Any) -> list[int]:
    """The sequence numbers that arrived, first copies only, in order of arrival."""
    seen: dict[str, int] = {}
    for message in subscriber.on("/events"):
        seen.setdefault(content(message)["id"], int(content(message)["sequence"]))
    return list(seen.values())


def states(subscriber: Any) -> list[str]:
    return list(subscriber.states("fer-1/status"))


def validate_all(subscriber: Any) -> None:
    documents = schemas.documents()
    for message in subscriber.messages:
        topic = parse_topic(message.topic)
        assert topic is not None, message.topic
        name = f"{schemas.schema_name(topic.kind)}.schema.json"
        if name in documents and message.payload:
            jsonschema.validate(content(message), documents[name])


def test_a_life_from_birth_to_clean_stop(
    mosquitto: Callable[..., Any], subscribe: Callable[..., Any], wait_for: Callable[..., None]
) -> None:
    broker = mosquitto()
    subscriber = subscribe(broker.port)

    with publishing(broker.port) as publisher:
        wait_for(lambda: states(subscriber) == ["starting"])
        camera = publisher.camera("front")
        camera.status(ONLINE)
        camera.publish(event(EventKind.STARTED))
        camera.publish(event(EventKind.UPDATED, emotion="neutral"))
        publisher.health(health(publisher))
        wait_for(lambda: subscriber.on("/emotion")[-1:] and subscriber.on("/health"))
        camera.publish(event(EventKind.ENDED))
        assert publisher.connected

    wait_for(lambda: states(subscriber) == ["starting", "online", "stopped"])
    validate_all(subscriber)
    assert delivered(subscriber) == [1, 2, 3]
    assert subscriber.on("/emotion")[-1].payload == b"nobody"
    assert content(subscriber.on("/state")[-1])["faces"] == []
    assert content(subscriber.on("/info")[0])["deployment_context"] == "research"
    first = subscriber.on("/events")[0]
    assert (first.expiry_s, first.content_type) == (
        86_400,
        "application/cloudevents+json; charset=utf-8",
    )
    assert subscriber.on("/state")[0].expiry_s == 60
    assert not publisher.connected
    counters = publisher.counters()
    assert (counters.published, counters.acknowledged, counters.dropped) == (3, 3, 0)

    late = subscribe(broker.port)
    wait_for(lambda: len(late.messages) >= 6)
    assert {message.topic.removeprefix("fer/v1/fer-1/") for message in late.messages} == {
        "status",
        "info",
        "health",
        "cameras/front/status",
        "cameras/front/state",
        "cameras/front/emotion",
    }
    assert all(message.retain for message in late.messages)


AGENT = """
    import sys, time
    from fer_agent.config.model import MqttConfig
    from fer_agent.mqtt.messages import Identity
    from fer_agent.mqtt.payloads import InfoPayload, ModelInfo, Models
    from fer_agent.mqtt.publisher import MqttPublisher

    broker, session = sys.argv[1:]
    models = Models(classifier=ModelInfo(name="net", sha256="ab" * 32))
    info = InfoPayload(agent_version="1", python_version="3", os="", board="", runtime="",
        models=models, cameras=(), config_sha256="cd" * 32, deployment_context="home",
        session=session)
    MqttPublisher(MqttConfig(broker=broker), Identity("fer-1", session), info).start()
    time.sleep(60)
"""


def test_the_broker_tells_of_a_death_without_a_word(
    mosquitto: Callable[..., Any], subscribe: Callable[..., Any], wait_for: Callable[..., None]
) -> None:
    broker = mosquitto()
    subscriber = subscribe(broker.port)
    session = uuid7()
    command = [sys.executable, "-c", textwrap.dedent(AGENT)]
    with subprocess.Popen([*command, f"mqtt://127.0.0.1:{broker.port}", session]) as agent:
        wait_for(lambda: states(subscriber) == ["starting"])
        agent.send_signal(signal.SIGKILL)

    wait_for(lambda: states(subscriber) == ["starting", "offline"])
    late = subscribe(broker.port)
    wait_for(lambda: late.on("fer-1/status"))
    will = late.on("fer-1/status")[0]
    assert will.retain
    assert content(will) == {"state": "offline", "session": session, "since": None}


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
        assert publisher.counters().reconnects >= 1

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


def test_a_link_cut_again_and_again_costs_nothing(
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
        assert publisher.counters().reconnects >= 2
    wait_for(lambda: len(delivered(subscriber)) == 300)
    assert delivered(subscriber) == list(range(1, 301))
    wait_for(lambda: states(subscriber)[-1:] == ["stopped"])
    assert states(subscriber).count("offline") >= 2
    identifiers = [content(each)["id"] for each in subscriber.on("/events")]
    assert len(set(identifiers)) == 300


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
        timing = Timing(first_wait_s=0.05, connect_s=0.3, stop_s=0.5)
        with publishing(port, timing=timing, protocol="5") as publisher:
            wait_for(lambda: caplog.text.count("does not answer") > 0)
            assert not publisher.connected
        with publishing(port, protocol="3.1.1") as publisher:
            wait_for(lambda: publisher.connected)


def test_state_and_word_are_repeated_while_the_camera_is_there(
    mosquitto: Callable[..., Any], subscribe: Callable[..., Any], wait_for: Callable[..., None]
) -> None:
    broker = mosquitto()
    subscriber = subscribe(broker.port)
    timing = Timing(repeat_s=0.1, first_wait_s=0.05, longest_wait_s=0.2)
    with publishing(broker.port, timing=timing) as publisher:
        camera = publisher.camera("front")
        camera.status(OFFLINE)
        wait_for(lambda: subscriber.on("front/status"))
        time.sleep(0.3)
        assert not subscriber.on("/state")
        assert not subscriber.on("/emotion")

        camera.status(ONLINE)
        wait_for(lambda: len(subscriber.on("/state")) >= 4 and len(subscriber.on("/emotion")) >= 4)
        assert {message.payload for message in subscriber.on("/emotion")} == {b"nobody"}

        camera.publish(event(EventKind.STARTED))
        wait_for(lambda: subscriber.last("/emotion") == b"happy")

        camera.status(OFFLINE)
        publisher.health(health(publisher))
        wait_for(lambda: subscriber.on("/health"))  # it comes after what the status changed
        assert states(subscriber)[-1] == "degraded"
        count = len(subscriber.on("/state"))
        time.sleep(0.4)
        assert len(subscriber.on("/state")) == count


def test_the_word_is_sent_only_when_it_changes(
    mosquitto: Callable[..., Any], subscribe: Callable[..., Any], wait_for: Callable[..., None]
) -> None:
    broker = mosquitto()
    subscriber = subscribe(broker.port)
    with publishing(broker.port) as publisher:
        camera = publisher.camera("front")
        for emotion in ("happy", "happy", "angry", "angry"):
            camera.publish(event(emotion=emotion))
            wait_for(lambda: publisher.counters().queued == 0)
        wait_for(lambda: len(subscriber.on("/events")) == 4)
    wait_for(lambda: states(subscriber)[-1:] == ["stopped"])
    words = [message.payload for message in subscriber.on("/emotion")]
    assert words == [b"happy", b"angry"]


def test_one_camera_lost_degrades_the_agent_until_it_is_back(
    mosquitto: Callable[..., Any], subscribe: Callable[..., Any], wait_for: Callable[..., None]
) -> None:
    broker = mosquitto()
    subscriber = subscribe(broker.port)
    with publishing(broker.port) as publisher:
        cameras = {name: publisher.camera(name) for name in ("front", "back", "attic")}
        disabled = CameraStatus(CameraState.DISABLED, "disabled in the configuration")
        for camera, status, agent in (
            ("attic", disabled, "starting"),
            ("front", ONLINE, "starting"),
            ("back", ONLINE, "online"),
            ("front", OFFLINE, "degraded"),
            ("front", ONLINE, "online"),
        ):
            cameras[camera].status(status)
            # Only what a topic says last is sent: wait for both before saying more.
            wait_for(lambda agent=agent: states(subscriber)[-1:] == [agent])
            own, told = f"{camera}/status", status.state.value
            wait_for(lambda own=own, told=told: subscriber.states(own)[-1:] == [told])
        assert subscriber.states("front/status") == ["online", "offline", "online"]
        assert content(subscriber.on("front/status")[1])["reason"] == "cable pulled"


def test_alerts_stand_until_cleared_also_those_of_a_session_that_died(
    mosquitto: Callable[..., Any], subscribe: Callable[..., Any], wait_for: Callable[..., None]
) -> None:
    broker = mosquitto()
    subscriber = subscribe(broker.port)
    subscriber.publish("fer/v1/fer-1/alerts/left-behind", b"{}", retain=True)
    with publishing(broker.port) as publisher:
        publisher.raise_alert("too-hot", "The board is too hot; give it air.")
        wait_for(lambda: subscriber.on("alerts/too-hot"))
        wait_for(lambda: subscriber.last("alerts/left-behind") == b"")
        late = subscribe(broker.port)
        wait_for(lambda: late.on("alerts/too-hot"))
        assert not late.on("alerts/left-behind")
        assert content(late.on("alerts/too-hot")[0])["text"].startswith("The board")
        publisher.clear_alert("too-hot")
        wait_for(lambda: late.last("alerts/too-hot") == b"")
        with pytest.raises(ValueError, match="a/b"):
            publisher.raise_alert("a/b", "no topic")


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
    assert publisher.counters().reconnects == 0


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
        publishing(port, timing=Timing(first_wait_s=0.05, connect_s=0.3)) as publisher,
    ):
        wait_for(lambda: len(came) >= 4)
        assert not publisher.connected


def test_rubbish_from_a_broker_ends_the_link_and_no_more(wait_for: Callable[..., None]) -> None:
    with scripted(CONNACK_5 + b"\x40\x01\x00") as (port, came), publishing(port) as publisher:
        wait_for(lambda: len(came) >= 3)
        assert publisher.counters().reconnects >= 1


def test_being_taken_over_takes_the_longest_wait(
    wait_for: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    timing = Timing(first_wait_s=0.01, longest_wait_s=1.0, stop_s=0.5)
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
        wait_for(lambda: publisher.counters().reconnects >= 1)
        rival.disconnect()
        rival.loop_stop()
        wait_for(lambda: publisher.connected)


def test_a_stalled_link_neither_blocks_publishing_nor_the_stop(
    mosquitto: Callable[..., Any], wire: Callable[[int], Any], wait_for: Callable[..., None]
) -> None:
    broker = mosquitto()
    line = wire(broker.port)
    timing = Timing(first_wait_s=0.05, stop_s=0.6)
    with publishing(line.port, timing=timing) as publisher:
        wait_for(lambda: publisher.connected)
        line.stalled = True
        for _ in range(2000):
            publisher.camera("front").publish(event())
        begun_s = time.monotonic()
        publisher.stop()
        # Not after the keep-alive, when the link would have been found dead.
        assert time.monotonic() - begun_s < MqttConfig().keepalive_s / 2
        counters = publisher.counters()
        line.stalled = False
    assert counters.published == 2000
    assert counters.dropped == 1000
    assert counters.queued == 1000


def test_a_silent_link_is_found_dead_by_its_keep_alive(
    mosquitto: Callable[..., Any], wire: Callable[[int], Any], wait_for: Callable[..., None]
) -> None:
    broker = mosquitto()
    line = wire(broker.port)
    config = MqttConfig(broker=f"mqtt://127.0.0.1:{line.port}").model_copy(
        update={"keepalive_s": 1}
    )
    identity = Identity("fer-1", uuid7())
    publisher = MqttPublisher(config, identity, information(identity), timing=QUICK)
    publisher.start()
    wait_for(lambda: publisher.connected)
    line.stalled = True
    wait_for(lambda: not publisher.connected)
    line.stalled = False
    wait_for(lambda: publisher.connected)
    publisher.stop()
    assert not publisher_threads()


def test_the_outbox_is_bounded_and_complains_once(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with publishing(port, outbox_events=10) as publisher:
        camera = publisher.camera("front")
        camera.publish(event(EventKind.STARTED))
        for _ in range(30):
            camera.publish(event())
        camera.publish(event(EventKind.ENDED))
        counters = publisher.counters()
    assert (counters.published, counters.dropped, counters.queued) == (32, 22, 10)
    assert caplog.text.count("the outbox is full") == 1
    assert "10 events were not delivered" in caplog.text


def test_events_wake_nobody_while_no_broker_is_there(
    wait_for: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    timing = Timing(first_wait_s=60.0, stop_s=0.1)
    with publishing(port, timing=timing) as publisher:
        wait_for(lambda: "cannot reach the broker" in caplog.text)
        for _ in range(30):
            publisher.camera("front").publish(event())
        # The first wake-up stays pending until there is a link, and stands for all others.
        receiver = publisher._courier._waker._receiver
        wait_for(lambda: receiver.recv(100, socket.MSG_PEEK) == b"\0")
        begun_s = time.monotonic()
    assert time.monotonic() - begun_s < timing.first_wait_s / 2


def test_an_event_that_breaks_the_contract_costs_only_itself(
    mosquitto: Callable[..., Any],
    subscribe: Callable[..., Any],
    wait_for: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = mosquitto()
    subscriber = subscribe(broker.port)
    with publishing(broker.port) as publisher:
        camera = publisher.camera("front")
        camera.publish(event(emotion="joy", track_id=2))
        camera.publish(event(EventKind.ENDED, track_id=2))
        wait_for(lambda: delivered(subscriber) == [2])
        assert publisher.counters().dropped == 1
    assert "breaks the contract" in caplog.text


def test_stopping_what_never_started_and_twice_is_harmless() -> None:
    identity = Identity("fer-1", uuid7())
    publisher = MqttPublisher(MqttConfig(), identity, information(identity))
    publisher.stop()
    publisher.stop()
    assert publisher.camera("a") is publisher.camera("a")


def test_back_off_doubles_to_its_cap_and_forgets_only_after_a_stable_connection() -> None:
    backoff = Backoff(first_s=1, longest_s=60, stable_s=60)

    waits = [backoff.next_s(connected_s=3) for _ in range(9)]

    for wait, full in zip(waits, (1, 2, 4, 8, 16, 32, 60, 60, 60), strict=True):
        assert full / 2 <= wait <= full
    assert backoff.next_s(connected_s=61) <= 1
    assert backoff.next_s(connected_s=0, hopeless=True) >= 30
    assert len({backoff.next_s(connected_s=61) for _ in range(20)}) > 1


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
    identity = Identity("fer-1", uuid7())

    with pytest.raises(ConfigError, match=message) as caught:
        MqttPublisher(MqttConfig(**settings), identity, information(identity))

    assert caught.value.remedy
