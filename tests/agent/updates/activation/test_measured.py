"""A version is measured on this board before it takes over, where measurements are in use."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from untried import Untried

from fer_agent.config import loading
from fer_agent.errors import TemporaryError
from fer_agent.inference.setting import PLAIN, Setting
from fer_agent.measure import record
from fer_agent.measure.fingerprint import model_sha256, of_this_board
from fer_agent.measure.record import MeasuredChoice
from fer_agent.measure.resolve import resolve
from fer_agent.models.store import find_model
from fer_agent.updates.activation import change, journal
from fer_agent.updates.activation.change import ModelChange
from fer_agent.updates.activation.journal import Phase
from fer_agent.updates.activation.versions import Versions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fer_agent.config.model import AgentConfig
    from fer_agent.models.store import StoredModel

    Stage = Callable[..., Path]

NAME = "tiny"
TWO_THREADS = Setting(threads=2)


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0})


def config_of(store: Path, runtime: str = "auto") -> AgentConfig:
    store.mkdir(parents=True, exist_ok=True)
    path = store.parent / "config.toml"
    path.write_text(
        f'[classifier]\nmodel = "{NAME}"\nruntime = "{runtime}"\n'
        f'[models]\npath = "{store}"\nslowdown_limit = 20.0\nkeep_versions = 2\n'
    )
    return loading.load_incomplete(path)


def record_current(store: Path) -> str:
    """Record a choice for the version that is linked; returns the hash of its content."""
    manifest = find_model(NAME, store).manifest
    record.write(
        store,
        MeasuredChoice(
            model=NAME,
            version=manifest.version,
            created="2026-01-01T00:00:00+00:00",
            fingerprint=of_this_board(manifest),
            setting=TWO_THREADS,
            measured=(),
        ),
    )
    return model_sha256(manifest)


def confirm(store: Path) -> None:
    """Do what a running agent does after its good minutes."""
    entry = journal.read(store, NAME)
    assert entry is not None
    journal.write(store, entry.at(Phase.PENDING).at(Phase.CONFIRMED))


def test_a_version_is_measured_between_its_self_test_and_the_switch(
    store: Path, stage: Stage
) -> None:
    ModelChange(store, Untried()).activate_staged(stage("1.0.0"), name=NAME)
    old = record_current(store)
    config = config_of(store)
    made = change.configured(config)
    steps: list[str] = []
    seen: list[str] = []

    def note(step: str) -> None:
        steps.append(step)
        if step == "measured":
            seen.append(find_model(NAME, store).manifest.version)

    replace(made, on_step=note).activate_staged(stage("1.1.0"), name=NAME)
    assert steps == ["verified", "adopted", "tried", "measured", "switched", "linked", "pruned"]
    assert seen == ["1.0.0"], "the old version runs while the new one is measured"
    manifest = find_model(NAME, store).manifest
    choice = record.read(store, NAME, model_sha256(manifest))
    assert choice is not None
    assert (choice.version, choice.fingerprint) == ("1.1.0", of_this_board(manifest))
    assert all(one.latency_ms for one in choice.measured)
    assert resolve(config.classifier, manifest, store) == choice.setting
    # Whoever goes back finds what was measured then.
    before = record.read(store, NAME, old)
    assert before is not None
    assert before.setting == TWO_THREADS


def test_measurements_leave_with_their_versions(store: Path, stage: Stage) -> None:
    made = change.configured(config_of(store))
    bring = replace(made, self_test=Untried(), setting=None)
    bring.activate_staged(stage("1.0.0"), name=NAME)
    confirm(store)
    old = record_current(store)
    for version in ("1.1.0", "1.2.0"):
        bring.activate_staged(stage(version), name=NAME)
        confirm(store)
    kept = [key.partition("-")[0] for key in Versions(store, NAME).installed()]
    assert kept == ["1.2.0", "1.1.0"]
    assert record.read(store, NAME, old) is None
    assert len(list(record.lock_of(store, NAME).parent.glob("*.json"))) == 2


def test_without_an_earlier_measurement_there_is_none(store: Path, stage: Stage) -> None:
    made = change.configured(config_of(store))
    replace(made, self_test=Untried(), setting=None).activate_staged(stage("1.0.0"), name=NAME)
    assert record.latest(store, NAME) is None


def test_where_tensorrt_is_configured_the_first_version_is_measured_too(
    store: Path, stage: Stage
) -> None:
    made = change.configured(config_of(store, runtime="tensorrt"))
    replace(made, self_test=Untried(), setting=None).activate_staged(stage("1.0.0"), name=NAME)
    assert record.latest(store, NAME) is not None


def test_a_version_that_cannot_be_measured_takes_over_and_runs_plain(
    store: Path, stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_model: StoredModel) -> bool:
        raise TemporaryError("another build is under way", remedy="wait")

    steps: list[str] = []
    ModelChange(store, Untried(), measure=fail, on_step=steps.append).activate_staged(
        stage("1.0.0"), name=NAME
    )
    assert steps == ["verified", "adopted", "tried", "switched", "linked", "pruned"]
    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert len(warnings) == 1
    assert warnings[0].endswith("was not measured and runs plain: another build is under way")
    manifest = find_model(NAME, store).manifest
    assert resolve(config_of(store).classifier, manifest, store) == PLAIN
