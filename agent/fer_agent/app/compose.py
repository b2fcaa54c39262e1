"""From a configuration to a running agent: the only module that names backends."""

from __future__ import annotations

import hashlib
import logging
import platform
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from fer_agent import __version__
from fer_agent.app.agent import Agent
from fer_agent.app.health import CameraMeter, HealthReporter
from fer_agent.app.watchdog import Watchdog
from fer_agent.camera.alerts import with_alert
from fer_agent.camera.sources import make_camera
from fer_agent.camera.view import OriginalCoordinates, View, ViewedCamera
from fer_agent.errors import DownloadError, ModelFileError
from fer_agent.inference import available
from fer_agent.inference.opening import Opener, file_of
from fer_agent.measure.fingerprint import model_sha256
from fer_agent.measure.record import FileWatcher
from fer_agent.measure.resolve import configured, follows_measurement, resolve
from fer_agent.models.store import file_sha256
from fer_agent.mqtt.messages import Identity
from fer_agent.mqtt.payloads import InfoPayload, ModelInfo, Models
from fer_agent.system import board
from fer_agent.updates.activation.health_check import Rules
from fer_agent.updates.activation.swap import Ready
from fer_agent.updates.activation.versions import version_of
from fer_agent.updates.activation.watch import ModelWatch
from fer_agent.updates.news import UpdateNews
from fer_agent.vision.classifier import CropClassifier
from fer_agent.vision.motion_gate import RestingDetector
from fer_agent.vision.pacing import Pace, PacedCamera, ThrottleWatch
from fer_agent.vision.pipeline import Pipeline
from fer_agent.vision.recorder import Record, RecordingClassifier
from fer_agent.vision.records import CameraState, CameraStatus, ModelIdentity
from fer_agent.vision.smoother import EmotionSmoother
from fer_agent.vision.timing import (
    FirstFrames,
    StageClock,
    TimedCamera,
    TimedClassifier,
    TimedDetector,
    TimedPublisher,
    TimedSmoother,
    TimedTracker,
)
from fer_agent.vision.tracker import IouTracker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fer_agent.app.agent import Chore
    from fer_agent.camera.threaded import ThreadedCamera
    from fer_agent.config.model import AgentConfig, CameraConfig, ClassifierConfig
    from fer_agent.models.store import StoredModel
    from fer_agent.mqtt.publisher import MqttPublisher
    from fer_agent.vision.ports import Camera, EmotionClassifier, FaceDetector, Publisher
    from fer_agent.vision.records import EmotionEvent

    Progress = Callable[[int, int], None]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a command adds to the configuration.

    Attributes:
        publish: False keeps every event on the device.
        max_frames: each camera ends after so many frames; None for all.
        record: JSON-lines file for per-frame results.
        progress: told bytes done and bytes in all while the detector is downloaded.
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
    new_camera: Callable[[str, CameraConfig, Callable[[CameraStatus], None]], ThreadedCamera]
    | None = None,
) -> Agent:
    """Load the networks and put an agent together; nothing is opened or connected yet.

    Args:
        config: the whole configuration; each room gets its own section.
        options: what the command adds.
        new_camera: makes a camera of its name, section and status listener; the demo shows its
            own scene with it.

    Raises:
        ModelError: no usable classifier, or YuNet was demanded and cannot be had.
        ConfigError: a runtime that the configuration names is not on this machine.
        CameraError: a source is of no known kind.
        UsageError: the record cannot be written.
    """
    store = config.store
    opener = Opener(store, wait=options.wait_for_engines)
    models = ModelWatch(
        store,
        config.classifier.model,
        load=partial(_classifier, config.classifier, opener),
        rules=Rules(confirm_s=config.models.confirm_minutes * 60.0),
    )
    new_detector, detector_info = _detector(config, opener, options.progress)
    identity = Identity.of_this_run(config.device.id)
    publisher = None
    if options.publish:
        publisher = _publisher(config, identity, models.ready, detector_info)
    record = None
    if options.record is not None:
        record = Record(options.record, _record_header(config, models.ready, identity))
    pace = Pace()
    line = _Line(config, models.classifier, new_detector, record, options.max_frames, pace)
    pipelines: dict[str, Pipeline] = {}
    meters: list[CameraMeter] = []
    pulses: dict[str, Callable[[], int]] = {}
    for name, section in config.camera.items():
        outlet = publisher.camera(name) if publisher is not None else _Nowhere()
        on_status: Callable[[CameraStatus], None] = outlet.status
        if publisher is not None:
            on_status = with_alert(on_status, publisher, name)
        if section.enabled:
            camera = (new_camera or make_camera)(name, section, on_status)
            pipelines[name], meter = line.pipeline(name, camera, outlet)
            meters.append(meter)
            pulses[name] = partial(getattr, camera, "turns")
        else:
            on_status(CameraStatus(CameraState.DISABLED, "disabled in the configuration"))
    health = HealthReporter(
        meters,
        session=identity.session,
        interval_s=config.health.interval_s,
        counters=None if publisher is None else publisher.counters,
    )
    models.serve(health.frames, partial(_tell_classifier, publisher, detector_info))
    opener.serve(partial(_tell_runtime, publisher))
    chores: list[Chore] = [models]
    if publisher is not None:
        chores.append(UpdateNews(store, config.classifier.model, publisher))
    if config.health.slow_when_throttled:
        chores.append(ThrottleWatch(pace))
    return Agent(
        pipelines,
        publisher=publisher,
        health=health,
        record=record,
        watchdog=Watchdog(pulses),
        chores=chores,
    )


def make_detector(config: AgentConfig, progress: Progress | None = None) -> FaceDetector:
    """Make the face detector alone, for a command that tries a camera.

    Raises:
        ModelError: YuNet was demanded and cannot be had.
    """
    store = config.store
    # Nobody wants an engine built for a few pictures.
    plain = config.detector.model_copy(update={"runtime": "onnx"})
    config = config.model_copy(update={"detector": plain})
    new_detector, _ = _detector(config, Opener(store), progress)
    return new_detector()


@dataclass(frozen=True, slots=True)
class _Line:
    """What the pipelines of all cameras have in common."""

    config: AgentConfig
    classifier: EmotionClassifier
    new_detector: Callable[[], FaceDetector]
    record: Record | None
    max_frames: int | None
    pace: Pace

    def pipeline(
        self, name: str, camera: ThreadedCamera, outlet: Publisher
    ) -> tuple[Pipeline, CameraMeter]:
        """Put the stages of one camera together, each behind its wrapper."""
        clock = StageClock()
        seen: Camera = camera
        section = self.config.camera[name]
        if view := View.of(section):
            seen = viewed = ViewedCamera(camera, view)
            outlet = OriginalCoordinates(outlet, viewed, view)
        seen = paced = PacedCamera(seen, self.pace, camera.stats)
        seen = TimedCamera(seen, clock, own_pace=section.pace == "own")
        if self.max_frames is not None:
            seen = FirstFrames(seen, self.max_frames)
        classifier: EmotionClassifier = TimedClassifier(self.classifier, clock)
        if self.record is not None:
            classifier = RecordingClassifier(classifier, self.record, name)
        pipeline = Pipeline(
            camera=seen,
            detector=self._detector(clock),
            tracker=TimedTracker(IouTracker(self.config.tracker), clock),
            classifier=classifier,
            smoother=TimedSmoother(_smoother(self.config), clock),
            publisher=TimedPublisher(outlet, clock),
        )
        return pipeline, CameraMeter(paced.stats, clock)

    def _detector(self, clock: StageClock) -> FaceDetector:
        """Make one camera's detector; only searches are timed, not the frames it rests in."""
        detector = TimedDetector(self.new_detector(), clock)
        tracker, rest_s = self.config.tracker, self.config.detector.rest_s
        if not rest_s:
            return detector
        return RestingDetector(
            detector, rest_s=rest_s, settle_s=tracker.max_missed_s, looks=tracker.confirm_frames
        )


def _detector(
    config: AgentConfig, opener: Opener, progress: Progress | None
) -> tuple[Callable[[], FaceDetector], ModelInfo | None]:
    """Return what makes a detector for one pipeline, and what to tell of its model.

    A detector keeps buffers of its own; all of them share one session.
    """
    from fer_agent.detector.haar import HaarDetector
    from fer_agent.detector.yunet import YuNetDetector
    from fer_agent.updates.connection import ProxyAndTls
    from fer_agent.updates.detector_file import first_fetcher, locate

    section = config.detector
    if section.backend == "haar":
        return lambda: HaarDetector(section), None
    fetcher = first_fetcher(ProxyAndTls(config.models.proxy, config.models.ca_file))
    try:
        path = locate(section, opener.store, progress=progress, fetcher=fetcher)
    except DownloadError as error:
        if section.backend == "yunet":
            raise ModelFileError(str(error), remedy=error.remedy) from error
        logger.warning("%s; the Haar cascade finds faces instead", error)
        return lambda: HaarDetector(section), None
    session = opener.detector(
        path,
        runtime=configured(config).runtime if section.runtime == "auto" else section.runtime,
        threads=section.threads,
        long_side=section.long_side,
    )
    synced = version_of(path.parent)
    info = ModelInfo(
        name=path.stem,
        sha256=file_sha256(path),
        version=None if synced is None else synced.version,
        precision="fp32",
    )
    return lambda: YuNetDetector(session, section), info


def _smoother(config: AgentConfig) -> EmotionSmoother:
    return EmotionSmoother(config.smoother, abstain_below=config.smoother.abstain_below)


def _classifier(config: ClassifierConfig, opener: Opener, model: StoredModel) -> Ready:
    """Load a model on the configured or measured runtime, in that precision.

    Raises:
        ModelError: the file is not there, not whole, or not what its manifest says.
        ConfigError: the configured runtime is not on this machine.
    """
    manifest = model.manifest
    # Before the record is read: what is written in between must not be missed.
    lookout = FileWatcher(opener.store, manifest.name, model_sha256(manifest))
    setting = resolve(config, manifest, opener.store)
    session = opener.model(model, setting)
    file = file_of(model, setting)
    identity = ModelIdentity(manifest.name, file.sha256, manifest.calibration.abstain_below)
    return Ready(
        classifier=CropClassifier(session, manifest, identity=identity),
        info=ModelInfo(
            name=manifest.name,
            sha256=file.sha256,
            version=manifest.version,
            precision=file.precision,
        ),
        labels=manifest.labels,
        setting=setting,
        outdated=lambda: follows_measurement(config) and lookout.changed(),
    )


def _tell_classifier(
    publisher: MqttPublisher | None, detector: ModelInfo | None, classifier: Ready
) -> None:
    if publisher is None:
        return
    publisher.update_info(models=Models(classifier=classifier.info, detector=detector))
    if classifier.setting.runtime == "onnx":  # another one is told when it serves
        _tell_runtime(publisher, "onnx")


def _tell_runtime(publisher: MqttPublisher | None, runtime: str) -> None:
    if publisher is not None:
        publisher.update_info(runtime=_runtime_words(runtime))


def _runtime_words(name: str) -> str:
    return f"{available.find(name).title} {available.version(name)}"


def _publisher(
    config: AgentConfig, identity: Identity, ready: Ready, detector: ModelInfo | None
) -> MqttPublisher:
    from fer_agent.mqtt.publisher import MqttPublisher

    info = InfoPayload(
        agent_version=__version__,
        python_version=platform.python_version(),
        os=platform.platform(),
        board=board.model_name(),
        runtime=_runtime_words("onnx"),
        models=Models(classifier=ready.info, detector=detector),
        cameras=tuple(config.camera),
        config_sha256=hashlib.sha256(config.model_dump_json().encode()).hexdigest(),
        deployment_context=config.deployment.context,
        session=identity.session,
    )
    return MqttPublisher(config.mqtt, identity, info)


def _record_header(config: AgentConfig, ready: Ready, identity: Identity) -> dict[str, object]:
    return {
        "device": config.device.id,
        "session": identity.session,
        "agent_version": __version__,
        "model": ready.info.name,
        "model_sha256": ready.info.sha256,
        "labels": list(ready.labels),
        "cameras": list(config.camera),
    }


class _Nowhere:
    """Where the events of a run without a broker go."""

    def publish(self, event: EmotionEvent) -> None:
        """Let the event go."""

    def status(self, status: CameraStatus) -> None:
        """Let the status go; the log has it."""
