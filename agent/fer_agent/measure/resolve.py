"""The setting in which a model runs, from the configuration and the measured choice."""

from __future__ import annotations

import logging
from pathlib import Path

from fer_agent.config.model import AgentConfig, ClassifierConfig
from fer_agent.errors import ModelError
from fer_agent.inference.setting import PLAIN, Setting
from fer_agent.measure import record
from fer_agent.measure.fingerprint import model_sha256, of_this_board
from fer_agent.measure.record import MeasuredChoice
from fer_agent.models.manifest import Manifest
from fer_agent.models.store import find_model

logger = logging.getLogger(__name__)


def resolve(config: ClassifierConfig, manifest: Manifest, store: Path) -> Setting:
    """Return the setting in which a model runs on this board.

    Keys that the configuration leaves to `auto` take the measured choice's value, the best one on
    the configured runtime; without one, or when it was measured under other conditions, FP32 on
    ONNX Runtime and one thread.

    Args:
        config: the classifier's section.
        manifest: of the model that is to run.
        store: the model store.
    """
    choice = _measured(manifest, store) if follows_measurement(config) else None
    base = (choice and choice.on(config.runtime)) or PLAIN
    return Setting(
        runtime=base.runtime if config.runtime == "auto" else config.runtime,
        precision=base.precision if config.precision == "auto" else config.precision,
        threads=base.threads if config.threads is None else config.threads,
    )


def follows_measurement(config: ClassifierConfig) -> bool:
    """Return whether the configuration leaves anything to the measured choice."""
    return "auto" in (config.runtime, config.precision) or config.threads is None


def configured(config: AgentConfig) -> Setting:
    """Return the configured model's setting on this board; plain when there is no such model."""
    try:
        model = find_model(config.classifier.model, config.store)
    except ModelError:
        return PLAIN
    return resolve(config.classifier, model.manifest, config.store)


def _measured(manifest: Manifest, store: Path) -> MeasuredChoice | None:
    advice = "`fer-agent models build` would measure what is fastest"
    choice = record.read(store, manifest.name, model_sha256(manifest))
    if choice is None:
        logger.info("nothing was measured for %s here: %s; %s", manifest.name, PLAIN, advice)
        return None
    if changed := of_this_board(manifest).differences(choice.fingerprint):
        logger.info(
            "%s changed since %s was measured: %s; %s",
            " and ".join(changed),
            manifest.name,
            PLAIN,
            advice,
        )
        return None
    return choice
