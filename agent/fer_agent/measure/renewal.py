"""Measuring again by itself, at low priority, after something changed."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Final

from fer_agent.config.model import AgentConfig, ClassifierConfig
from fer_agent.errors import AgentError, UnavailableError
from fer_agent.inference.available import available
from fer_agent.inference.setting import Setting
from fer_agent.measure import record
from fer_agent.measure.fingerprint import of_this_board
from fer_agent.measure.record import MeasuredChoice
from fer_agent.measure.resolve import follows_measurement
from fer_agent.measure.search import SettingSearch
from fer_agent.models.store import StoredModel, find_model

logger = logging.getLogger(__name__)

IN_BACKGROUND: Final = SettingSearch(niceness=10, within_s=2700.0)
"""Leaves the running agent its frames; a timer's sync has time for two such searches."""


def renew(
    config: ClassifierConfig,
    model: StoredModel,
    store: Path,
    search: SettingSearch = IN_BACKGROUND,
    *,
    first: bool = False,
) -> MeasuredChoice | None:
    """Measure a model if one of its name was measured here, but not under the present conditions.

    Args:
        config: the classifier's section.
        model: the model that runs, or is about to.
        store: the model store.
        search: tries the settings; the limit of accuracy is that of the last measurement.
        first: whether to measure also where none of its name ever was.

    Returns:
        The new choice; None when none is needed.

    Raises:
        UnavailableError: TensorRT is installed and in use here, but this process cannot use it.
        ModelError, TemporaryError, ConfigError: as `SettingSearch.run`.
    """
    if not follows_measurement(config) and config.runtime != "tensorrt":
        return None
    manifest, here = model.manifest, of_this_board(model.manifest)
    known = record.read(store, manifest.name, here.model_sha256)
    if known is not None and known.fingerprint == here:
        return None
    last = record.latest(store, manifest.name)
    if last is not None:
        search = replace(search, limit=last.limit)
    elif not first:
        return None
    logger.info("measuring which setting of %s %s is fastest here", manifest.name, manifest.version)
    used = last.setting.runtime if last and config.runtime == "auto" else config.runtime
    if used == "tensorrt" and "tensorrt" in here.runtimes:
        # A sandbox may hide the GPU, and a measurement inside must not count outside. Where the GPU
        # is there this costs nothing: the engine is kept for the search below.
        problem = search.attempt(model, store, Setting(runtime="tensorrt")).problem
        if problem:
            raise UnavailableError(
                f"TensorRT, which was used here, does not work in this process: {problem}",
                remedy="run `fer-agent models build` by hand",
            )
    return search.run(model, store, available())


def for_switch(config: AgentConfig, model: StoredModel) -> bool:
    """Measure a version before it takes over, where measurements or TensorRT are in use.

    Returns:
        Whether it was measured.

    Raises:
        AgentError: as `renew`.
    """
    classifier = config.classifier
    first = classifier.runtime == "tensorrt" and classifier.model == model.manifest.name
    return renew(classifier, model, config.store, first=first) is not None


def on_schedule(config: AgentConfig, store: Path) -> None:
    """Measure the configured model again if it was measured here and something changed since.

    A failure is logged as a warning.
    """
    name = config.classifier.model
    if record.latest(store, name) is None:
        return
    try:
        choice = renew(config.classifier, find_model(name, store), store)
    except AgentError as error:
        logger.warning("%s could not be measured again: %s; %s", name, error, error.remedy)
    else:
        if choice is not None:
            logger.info("%s is to run as %s from now on", name, choice.setting)
