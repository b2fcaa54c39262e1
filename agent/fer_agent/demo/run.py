"""The whole main job on one machine: scene, agent, broker and subscriber, in one process."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final

from fer_agent.app import compose
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
from fer_agent.watch.listener import Received, Watcher

if TYPE_CHECKING:
    from collections.abc import Callable

    from fer_agent.app.agent import Agent
    from fer_agent.camera.contract import FrameSource
    from fer_agent.vision.records import CameraStatus
    from fer_agent.watch.listener import LinkNews

SCHEMA_VERSION: Final = 1
DEVICE_ID: Final = "fer-demo"
SCENE: Final = "scene"
"""The camera's name, and the source that stands for the drawn scene."""

_HEALTH_S = 5.0
_LAST_WORDS_S = 3.0
"""How long the broker may take to hand over what the agent has published, its goodbye included."""

_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the demo shows.

    Attributes:
        seconds: how long; None for one tour of the scene, or until a given source ends.
        source: a camera device or media file to watch instead of the scene.
        settings: the agent's configuration; None for the demo's own. Its broker is replaced.
    """

    seconds: float | None = None
    source: str | None = None
    settings: AgentConfig | None = None


@dataclass(frozen=True, slots=True)
class DemoSummary:
    """What went through.

    Attributes:
        seconds: from the agent's start to its end.
        frames: frames that went through the networks.
        fps: the same per second.
        tracks: different tracks among the events received.
        events_published: events the agent made.
        events_received: different events, by id, the subscriber received.
        duplicates: events the broker delivered another time.
        lost: events made and never received.
        emotions: by track, the label that was shown for the longest time.
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
        """Return a few lines for people."""
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
    """Counts different events; brokers may deliver one more than once."""

    duplicates: int = 0
    ids: set[str] = field(default_factory=set)
    shown_s: dict[str, dict[str, float]] = field(default_factory=dict)
    """By track and label: for how long, as far as the track's events tell."""
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
        """Return, by track, the label that was shown for the longest time."""
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
        self._said_goodbye = False

    def open(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Start the broker, subscribe, and load the networks.

        Args:
            progress: told bytes done and bytes in all while the face detector is downloaded.

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

    def run(self, on_arrival: Callable[[Received | LinkNews], None]) -> DemoSummary:
        """Run the agent to its end.

        Args:
            on_arrival: called in this thread with everything the subscriber receives, each event
                once however often the broker delivers it.

        Raises:
            CameraError: the given source cannot be played.
            InferenceError: a network failed while running.
            UsageError: run before `open`.
        """
        if self._agent is None or self._watcher is None:
            raise UsageError("the demo is not open", remedy="open it before running it")
        running = _Running(self._agent)
        try:
            while running.alive():
                self._hand_over(self._watcher.next(_POLL_S), on_arrival)
                if self._stopped or self._is_over(running.seconds()):
                    self._agent.stop()
        finally:
            self._agent.stop()
            running.finish()
        outbox = self._agent.health.measure().outbox
        published = outbox.published if outbox is not None else 0
        deadline_s = time.monotonic() + _LAST_WORDS_S
        while not self._has_all(published) and time.monotonic() < deadline_s:
            self._hand_over(self._watcher.next(_POLL_S), on_arrival)
        return self._summary(published, running.seconds())

    def stop(self) -> None:
        """End the run early but in good order, also from a signal handler; returns at once."""
        self._stopped = True

    def close(self) -> None:
        """Unsubscribe and stop the broker; harmless when not open."""
        self._stack.close()

    def _is_over(self, seconds: float) -> bool:
        """Tell whether time is up; the scene ends by itself, so that it is seen to its end."""
        limit = self._options.seconds
        return self._options.source is not None and limit is not None and seconds > limit

    def _hand_over(
        self, arrived: Received | LinkNews | None, on_arrival: Callable[[Received | LinkNews], None]
    ) -> None:
        if arrived is None:
            return
        said = arrived.read() if isinstance(arrived, Received) else None
        payload = said[1] if said is not None else None
        if isinstance(payload, StatusPayload) and payload.state == "stopped":
            self._said_goodbye = True
        if not isinstance(payload, EventMessage) or self._tally.is_new(payload):
            on_arrival(arrived)

    def _has_all(self, published: int) -> bool:
        """Tell whether every event and the agent's goodbye have come; brokers confirm sooner."""
        return self._said_goodbye and len(self._tally.ids) >= published

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


class _Running:
    """The agent in a thread of its own; what ended it is raised by `finish`."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._error: BaseException | None = None
        self._started_s = time.monotonic()
        self._seconds: float | None = None
        self._thread = threading.Thread(target=self._run, name="demo-agent")
        self._thread.start()

    def _run(self) -> None:
        try:
            self._agent.run()
        except BaseException as error:  # noqa: BLE001 - thread boundary: finish raises it
            self._error = error
        finally:
            self._seconds = time.monotonic() - self._started_s

    def alive(self) -> bool:
        """Tell whether the agent still runs."""
        return self._thread.is_alive()

    def seconds(self) -> float:
        """Return how long the agent runs, or ran."""
        return time.monotonic() - self._started_s if self._seconds is None else self._seconds

    def finish(self) -> None:
        """Wait for the agent's end; raise what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error


def _settings(options: DemoOptions) -> AgentConfig:
    name, source = (SCENE, SCENE) if options.source is None else ("main", options.source)
    return AgentConfig(
        device=DeviceConfig(id=DEVICE_ID),
        deployment=DeploymentConfig(context="entertainment"),
        camera={name: CameraConfig(source=source)},
        health=HealthConfig(interval_s=_HEALTH_S),
    )
