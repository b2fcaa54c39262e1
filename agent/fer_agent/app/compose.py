"""From a configuration to a running agent."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from fer_agent import __version__
from fer_agent.app.agent import Agent
from fer_agent.app.device_info import DeviceInfo
from fer_agent.app.health import HealthReporter, frames_of
from fer_agent.app.networks import load_classifier, load_detector
from fer_agent.app.pipelines import NullPublisher, PipelineFactory
from fer_agent.app.watchdog import Watchdog
from fer_agent.camera.alerts import with_alert
from fer_agent.camera.sources import make_camera
from fer_agent.inference.opening import Opener
from fer_agent.mqtt.messages import Identity
from fer_agent.updates.activation.health_check import Rules
from fer_agent.updates.activation.watch import ModelWatch
from fer_agent.updates.news import UpdateNews
from fer_agent.vision.pacing import ThrottleWatch
from fer_agent.vision.recorder import FrameRecorder
from fer_agent.vision.records import CameraState, CameraStatus

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fer_agent.app.agent import PeriodicTask
    from fer_agent.app.health import CameraMeter
    from fer_agent.app.networks import Progress
    from fer_agent.camera.threaded import ThreadedCamera
    from fer_agent.config.model import AgentConfig, CameraConfig
    from fer_agent.mqtt.publisher import MqttPublisher
    from fer_agent.updates.activation.swap import Ready
    from fer_agent.vision.pipeline import Pipeline
    from fer_agent.vision.ports import FaceDetector

    NewCamera = Callable[[str, CameraConfig, Callable[[CameraStatus], None]], ThreadedCamera]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of a command that the configuration does not have.

    Attributes:
        publish: False keeps every event on the device.
        max_frames: each camera ends after so many frames; None for all.
        record: JSON-lines file for per-frame results.
        progress: called with bytes done and bytes in all while the detector is downloaded.
        wait_for_engines: whether TensorRT has to be ready first; else ONNX Runtime serves until it
            is.
    """

    publish: bool = True
    max_frames: int | None = None
    record: Path | None = None
    progress: Progress | None = None
    wait_for_engines: bool = False


def build(
    config: AgentConfig,
    options: RunOptions = RunOptions(),
    *,
    new_camera: NewCamera = make_camera,
) -> Agent:
    """Load the networks and put an agent together; nothing is opened or connected yet.

    Args:
        config: the whole configuration; each package gets its own section.
        options: what the command adds.
        new_camera: makes a camera from its name, section and status listener.

    Raises:
        ModelError: no usable classifier, or YuNet was demanded and cannot be had.
        ConfigError: a runtime that the configuration names is not on this machine, or a file that
            it names for the broker cannot be used.
        CameraError: a source is of no known kind.
        UsageError: the record cannot be written.
    """
    with ExitStack() as undo:  # closes what is open when a later part cannot be made
        agent = _assemble(config, options, new_camera, undo)
        undo.pop_all()
    return agent


def make_detector(config: AgentConfig, progress: Progress | None = None) -> FaceDetector:
    """Make the face detector alone, for a command that tries a camera.

    Raises:
        ModelError: YuNet was demanded and cannot be had.
    """
    # An engine is not worth its building for a few pictures.
    plain = config.detector.model_copy(update={"runtime": "onnx"})
    config = config.model_copy(update={"detector": plain})
    new_detector, _ = load_detector(config, Opener(config.store), progress)
    return new_detector()


def _assemble(
    config: AgentConfig, options: RunOptions, new_camera: NewCamera, undo: ExitStack
) -> Agent:
    identity = Identity.of_this_run(config.device.id)
    publisher = _publisher(config, identity, undo) if options.publish else None
    info = DeviceInfo(config, identity, *(() if publisher is None else (publisher.info,)))
    meters: list[CameraMeter] = []
    opener = Opener(config.store, wait=options.wait_for_engines, on_runtime=info.runtime)
    models = ModelWatch(
        config.store,
        config.classifier.model,
        load=partial(load_classifier, config.classifier, opener),
        rules=Rules(confirm_s=config.models.confirm_minutes * 60.0),
        frames=partial(frames_of, meters),
        on_change=info.classifier,
    )
    new_detector, detector_model = load_detector(config, opener, options.progress)
    info.detector(detector_model)
    factory = PipelineFactory(
        config,
        models.classifier,
        new_detector,
        meters,
        record=_record(options.record, config, models.ready, identity, undo),
        max_frames=options.max_frames,
    )
    pipelines, progress = _cameras(factory, publisher, new_camera)
    tasks: list[PeriodicTask] = [models]
    if publisher is not None:
        tasks.append(UpdateNews(config.store, config.classifier.model, publisher, info.updates))
    if config.health.slow_when_throttled:
        tasks.append(ThrottleWatch(factory.pace))
    return Agent(
        pipelines,
        publisher=publisher,
        health=HealthReporter(
            meters,
            session=identity.session,
            interval_s=config.health.interval_s,
            publisher=publisher,
        ),
        record=factory.record,
        watchdog=Watchdog(progress),
        tasks=tasks,
    )


def _publisher(config: AgentConfig, identity: Identity, undo: ExitStack) -> MqttPublisher:
    from fer_agent.mqtt.publisher import MqttPublisher  # a run without a broker loads no paho

    publisher = MqttPublisher(config.mqtt, identity)
    undo.callback(publisher.stop)
    return publisher


def _record(
    path: Path | None, config: AgentConfig, ready: Ready, identity: Identity, undo: ExitStack
) -> FrameRecorder | None:
    if path is None:
        return None
    header: dict[str, object] = {
        "device": config.device.id,
        "session": identity.session,
        "agent_version": __version__,
        "model": ready.info.name,
        "model_sha256": ready.info.sha256,
        "labels": list(ready.labels),
        "cameras": list(config.camera),
    }
    record = FrameRecorder(path, header)
    undo.callback(record.close)
    return record


def _cameras(
    factory: PipelineFactory, publisher: MqttPublisher | None, new_camera: NewCamera
) -> tuple[dict[str, Pipeline], dict[str, Callable[[], int]]]:
    """Make the enabled cameras' pipelines, and return the progress counter of each as well."""
    pipelines: dict[str, Pipeline] = {}
    progress: dict[str, Callable[[], int]] = {}
    for name, section in factory.config.camera.items():
        own = NullPublisher() if publisher is None else publisher.camera(name)
        on_status: Callable[[CameraStatus], None] = own.status
        if publisher is not None:
            on_status = with_alert(on_status, publisher, name)
        if section.enabled:
            camera = new_camera(name, section, on_status)
            pipelines[name] = factory.pipeline(name, camera, own)
            progress[name] = partial(getattr, camera, "turns")
        else:
            on_status(CameraStatus(CameraState.DISABLED, "disabled in the configuration"))
    return pipelines, progress
