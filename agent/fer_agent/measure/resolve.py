"""From the configuration to one setting: what it names counts, the rest is as measured here."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fer_agent.errors import ModelError
from fer_agent.inference.setting import PLAIN, Setting
from fer_agent.measure import record
from fer_agent.measure.fingerprint import model_sha256, of_this_board
from fer_agent.models.store import find_model

if TYPE_CHECKING:
    from pathlib import Path

    from fer_agent.config.model import AgentConfig, ClassifierConfig
    from fer_agent.measure.record import Choice
    from fer_agent.models.manifest import Manifest

logger = logging.getLogger(__name__)


def resolve(config: ClassifierConfig, manifest: Manifest, store: Path) -> Setting:
    """Return how a model runs on this board.

    Keys of the configuration that are not set to a value of their own take the measured choice's,
    the best one on the configured runtime; without one, or when it was measured under other
    circumstances, FP32 on ONNX Runtime and one thread.

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
    """Tell whether the configuration leaves anything to what was measured."""
    return "auto" in (config.runtime, config.precision) or config.threads is None


def configured(config: AgentConfig) -> Setting:
    """Return how the configured model runs on this board; plain when there is no such model."""
    store = config.store
    try:
        model = find_model(config.classifier.model, store)
    except ModelError:
        return PLAIN
    return resolve(config.classifier, model.manifest, store)


def _measured(manifest: Manifest, store: Path) -> Choice | None:
    advice = "`fer-agent models build` would measure what is fastest"
    choice = record.read(store, manifest.name, model_sha256(manifest))
    if choice is None:
        logger.info("nothing was measured for %s here: %s; %s", manifest.name, PLAIN, advice)
        return None
    changed = choice.fingerprint.differences(of_this_board(manifest))
    if changed:
        logger.info(
            "%s changed since %s was measured: %s; %s",
            " and ".join(changed),
            manifest.name,
            PLAIN,
            advice,
        )
        return None
    return choice
