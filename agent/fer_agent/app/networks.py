"""The networks of a running agent: the classifier, which updates may replace, and the detector."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from fer_agent.config.model import AgentConfig, ClassifierConfig
from fer_agent.detector.haar import HaarDetector
from fer_agent.detector.yunet import YuNetDetector
from fer_agent.errors import DownloadError, ModelFileError
from fer_agent.inference.opening import Opener, file_of
from fer_agent.measure.fingerprint import model_sha256
from fer_agent.measure.record import FileWatcher
from fer_agent.measure.resolve import configured, follows_measurement, resolve
from fer_agent.models.store import StoredModel, file_sha256
from fer_agent.mqtt.payloads import ModelInfo
from fer_agent.updates.activation.swap import Ready
from fer_agent.updates.activation.versions import version_of
from fer_agent.updates.connection import ProxyAndTls
from fer_agent.updates.detector_file import FIRST_START, locate
from fer_agent.updates.fetch import Fetcher
from fer_agent.vision.classifier import CropClassifier
from fer_agent.vision.ports import FaceDetector
from fer_agent.vision.records import ModelIdentity

Progress = Callable[[int, int], None]

logger = logging.getLogger(__name__)


def load_classifier(config: ClassifierConfig, opener: Opener, model: StoredModel) -> Ready:
    """Load a model on the configured or measured runtime, in that precision.

    Raises:
        ModelError: the file is not there, not whole, or not what its manifest says.
        ConfigError: the configured runtime is not on this machine.
    """
    manifest = model.manifest
    # Before the record is read: what is written in between must not be missed.
    watcher = FileWatcher(opener.store, manifest.name, model_sha256(manifest))
    setting = resolve(config, manifest, opener.store)
    session = opener.model(model, setting)
    file = file_of(model, setting)
    return Ready(
        classifier=CropClassifier(session, manifest, identity=ModelIdentity.of(manifest, file)),
        info=ModelInfo(
            name=manifest.name,
            sha256=file.sha256,
            version=manifest.version,
            precision=file.precision,
        ),
        labels=manifest.labels,
        setting=setting,
        outdated=lambda: follows_measurement(config) and watcher.changed(),
    )


def load_detector(
    config: AgentConfig, opener: Opener, progress: Progress | None
) -> tuple[Callable[[], FaceDetector], ModelInfo | None]:
    """Load the face detector that the configuration asks for.

    Returns:
        A function that makes a detector for one pipeline (each has its own buffers, all share one
        session), and the model; None for the Haar cascade, which has none.

    Raises:
        ModelError: YuNet was demanded and cannot be had.
        ConfigError: the configured runtime is not on this machine.
    """
    section = config.detector
    if section.backend == "haar":
        return partial(HaarDetector, section), None
    web = ProxyAndTls(config.models.proxy, config.models.ca_file)
    fetcher = Fetcher(web, retry=FIRST_START)
    try:
        path = locate(section, opener.store, progress=progress, fetcher=fetcher)
    except DownloadError as error:
        if section.backend == "yunet":
            raise ModelFileError(str(error), remedy=error.remedy) from error
        logger.warning("%s; the Haar cascade finds faces instead", error)
        return partial(HaarDetector, section), None
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
    return partial(YuNetDetector, session, section), info
