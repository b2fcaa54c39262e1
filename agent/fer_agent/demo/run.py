"""The demo's run of scene, agent, broker and subscriber in one process."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Final

from fer_agent.app import compose
from fer_agent.app.agent import Agent
from fer_agent.camera.contract import FrameSource
from fer_agent.camera.sources import make_camera
from fer_agent.camera.threaded import ThreadedCamera
from fer_agent.config.model import (
    AgentConfig,
    CameraConfig,
    DeploymentConfig,
    DeviceConfig,
    HealthConfig,
    MqttConfig,
)
from fer_agent.demo.scene import TOUR_S, SceneSource
from fer_agent.errors import UsageError
from fer_agent.mqtt.embedded_broker import EmbeddedBroker
from fer_agent.mqtt.payloads import EventMessage, StatusPayload
from fer_agent.vision.records import CameraStatus
from fer_agent.watch.listener import Arrival, ReceivedMessage, Watcher

SCHEMA_VERSION: Final = 1
DEVICE_ID: Final = "fer-demo"
SCENE: Final = "scene"
"""The name and the source of the camera that shows the drawn scene."""

_HEALTH_S = 5.0
_DELIVERY_S = 3.0
"""Longest wait for the broker to deliver all events and the agent's `stopped` status."""

_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The demo's options.

    Attributes:
        seconds: duration; None for one tour of the scene, or until a given source ends.
        source: a camera device or media file to watch instead of the scene.
        settings: the agent's configuration; None for the demo's own. Its broker is replaced.
    """

    seconds: float | None = None
    source: str | None = None
    settings: AgentConfig | None = None


@dataclass(frozen=True, slots=True)
class DemoSummary:
    """The demo's result.

    Attributes:
        seconds: from the agent's start to its end.
        frames: frames that went through the networks.
        fps: the same per second.
        tracks: different tracks among the events received.
        events_published: events published by the agent.
        events_received: different events, by id, received by the subscriber.
        duplicates: events that the broker delivered again.
        lost: events published and never received.
        emotions: by track, the label with the longest time.
    """

    seconds: float
    frames: int
    fps: float
    tracks: int
    events_published: int
    events_received: int
    duplicates: int
    lost: int
    emotions: dict[str, str]

    def as_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps({"schema_version": SCHEMA_VERSION, "summary": asdict(self)})

    def as_text(self) -> str:
        """Return the result as a few lines of text."""
        shown = ", ".join(f"{track}: {word}" for track, word in self.emotions.items()) or "none"
        return (
            f"{self.frames} frames in {self.seconds:.1f} s ({self.fps:.1f} a second), "
            f"{self.tracks} {'track' if self.tracks == 1 else 'tracks'}\n"
            f"{self.events_published} events published, {self.events_received} received, "
            f"{self.lost} lost\n"
            f"emotion by track: {shown}"
        )


@dataclass(slots=True)
class _Tally:
    """The count of different events, as brokers may deliver one more than once."""

    duplicates: int = 0
    ids: set[str] = field(default_factory=set)
    shown_s: dict[str, dict[str, float]] = field(default_factory=dict)
    """Seconds by track and label, up to the track's last event."""
    last: dict[str, EventMessage] = field(default_factory=dict)

    def is_new(self, event: EventMessage) -> bool:
        """Count an event; False for one that came before."""
        if event.id in self.ids:
            self.duplicates += 1
            return False
        self.ids.add(event.id)
        track = self.shown_s.setdefault(event.subject, defaultdict(float))
        track[event.data.emotion] += 0.0
        before = self.last.get(event.subject)
        if before is not None:
            track[before.data.emotion] += event.data.duration_s - before.data.duration_s
        self.last[event.subject] = event
        return True

    def emotions(self) -> dict[str, str]:
        """Return, by track, the label with the longest time."""
        return {track: max(words, key=words.__getitem__) for track, words in self.shown_s.items()}


class Demo:
    """One run of the demo: `open`, `run` and `close` in one thread, `stop` from any."""

    def __init__(self, options: DemoOptions) -> None:
        self._options = options
        self._stopped = False
        self._stack = ExitStack()
        self._watcher: Watcher | None = None
        self._agent: Agent | None = None
        self._cameras: list[ThreadedCamera] = []
        self._tally = _Tally()
        self._agent_stopped = False

    def open(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Start the broker, subscribe, and load the networks.

        Args:
            progress: called with bytes done and bytes in all during the detector's download.

        Raises:
            MissingExtraError: the embedded broker's package is not installed.
            BrokerError: the embedded broker does not start.
            ModelError: no usable classifier.
        """
        broker = self._stack.enter_context(EmbeddedBroker())
        mqtt = MqttConfig(broker=broker.uri, protocol="3.1.1")
        self._watcher = Watcher(mqtt)
        self._stack.callback(self._watcher.close)
        self._watcher.connect()
        settings = self._options.settings or _settings(self._options)
        self._agent = compose.build(
            settings.model_copy(update={"mqtt": mqtt}),
            compose.RunOptions(progress=progress),
            new_camera=self._new_camera,
        )

    def run(self, on_arrival: Callable[[Arrival], None]) -> DemoSummary:
        """Run the agent to its end.

        Args:
            on_arrival: called in this thread with everything the subscriber receives, each event
                only once.

        Raises:
            CameraError: the given source cannot be played.
            InferenceError: a network failed while running.
            UsageError: run before `open`.
        """
        if self._agent is None or self._watcher is None:
            raise UsageError("the demo is not open", remedy="open it before running it")
        started_s = time.monotonic()
        with ThreadPoolExecutor(1, "demo-agent") as executor:
            running = executor.submit(_seconds_of, self._agent.run)
            try:
                while not running.done():
                    self._hand_over(self._watcher.next(_POLL_S), on_arrival)
                    if self._stopped or self._is_over(time.monotonic() - started_s):
                        self._agent.stop()
            finally:
                self._agent.stop()
        seconds = running.result()
        outbox = self._agent.health.measure().outbox
        published = outbox.published if outbox is not None else 0
        deadline_s = time.monotonic() + _DELIVERY_S
        while not self._has_all(published) and time.monotonic() < deadline_s:
            self._hand_over(self._watcher.next(_POLL_S), on_arrival)
        return self._summary(published, seconds)

    def stop(self) -> None:
        """End the run early but in good order, also from a signal handler; returns at once."""
        self._stopped = True

    def close(self) -> None:
        """Unsubscribe and stop the broker; harmless when not open."""
        self._stack.close()

    def _is_over(self, seconds: float) -> bool:
        """Tell whether the time of a given source is up; the scene ends by itself."""
        limit = self._options.seconds
        return self._options.source is not None and limit is not None and seconds > limit

    def _hand_over(self, arrived: Arrival | None, on_arrival: Callable[[Arrival], None]) -> None:
        if arrived is None:
            return
        message = arrived.read() if isinstance(arrived, ReceivedMessage) else None
        payload = message[1] if message is not None else None
        if isinstance(payload, StatusPayload) and payload.state == "stopped":
            self._agent_stopped = True
        if not isinstance(payload, EventMessage) or self._tally.is_new(payload):
            on_arrival(arrived)

    def _has_all(self, published: int) -> bool:
        """Tell whether all events and the `stopped` status have come; brokers confirm sooner."""
        return self._agent_stopped and len(self._tally.ids) >= published

    def _new_camera(
        self, name: str, config: CameraConfig, on_status: Callable[[CameraStatus], None]
    ) -> ThreadedCamera:
        if config.source == SCENE:
            source: FrameSource = SceneSource(self._options.seconds or TOUR_S)
            camera = ThreadedCamera(
                source, name=name, gap_s=config.gap_s, live=False, on_status=on_status
            )
        else:
            camera = make_camera(name, config, on_status)
        self._cameras.append(camera)
        return camera

    def _summary(self, published: int, seconds: float) -> DemoSummary:
        stats = [camera.stats() for camera in self._cameras]
        frames = sum(each.captured - each.dropped for each in stats)
        received = len(self._tally.ids)
        return DemoSummary(
            seconds=round(seconds, 1),
            frames=frames,
            fps=round(frames / max(seconds, 1e-6), 1),
            tracks=len(self._tally.shown_s),
            events_published=published,
            events_received=received,
            duplicates=self._tally.duplicates,
            lost=published - received,
            emotions=self._tally.emotions(),
        )


def _seconds_of(run: Callable[[], None]) -> float:
    started_s = time.monotonic()
    run()
    return time.monotonic() - started_s


def _settings(options: DemoOptions) -> AgentConfig:
    name, source = (SCENE, SCENE) if options.source is None else ("main", options.source)
    return AgentConfig(
        device=DeviceConfig(id=DEVICE_ID),
        deployment=DeploymentConfig(context="entertainment"),
        camera={name: CameraConfig(source=source)},
        health=HealthConfig(interval_s=_HEALTH_S),
    )
