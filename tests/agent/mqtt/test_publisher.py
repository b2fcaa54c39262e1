"""The topics and payloads of the publisher, read from a real broker."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

import pytest
from publishing import (
    OFFLINE,
    ONLINE,
    content,
    delivered,
    event,
    health,
    information,
    publishing,
    states,
    validate_all,
)

from fer_agent.config.model import MqttConfig
from fer_agent.mqtt.messages import Identity, uuid7
from fer_agent.mqtt.publisher import MqttPublisher, SessionTiming
from fer_agent.vision.records import CameraState, CameraStatus, EventKind

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.broker


def test_a_life_from_birth_to_clean_stop(
    mosquitto: Callable[..., Any], subscribe: Callable[..., Any], wait_for: Callable[..., None]
) -> None:
    broker = mosquitto()
    subscriber = subscribe(broker.port)

    with publishing(broker.port) as publisher:
        wait_for(lambda: states(subscriber) == ["starting"])
        publisher.info(information())
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
    from fer_agent.mqtt.publisher import MqttPublisher

    broker, session = sys.argv[1:]
    MqttPublisher(MqttConfig(broker=broker), Identity("fer-1", session)).start()
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


def test_state_and_word_are_repeated_while_the_camera_is_there(
    mosquitto: Callable[..., Any], subscribe: Callable[..., Any], wait_for: Callable[..., None]
) -> None:
    broker = mosquitto()
    subscriber = subscribe(broker.port)
    timing = SessionTiming(repeat_s=0.1, first_wait_s=0.05, longest_wait_s=0.2)
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
    publisher = MqttPublisher(MqttConfig(), Identity("fer-1", uuid7()))
    publisher.stop()
    publisher.stop()
    assert publisher.camera("a") is publisher.camera("a")
