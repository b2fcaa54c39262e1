"""The running agent's side: swaps between frames, judges, goes back; and what a start finds."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from untried import Untried

from fer_agent.errors import InferenceError, ModelError
from fer_agent.inference.onnx import OnnxSession
from fer_agent.models.store import find_model
from fer_agent.mqtt.payloads import ModelInfo
from fer_agent.updates.activation import journal, state
from fer_agent.updates.activation.change import ModelChange
from fer_agent.updates.activation.health_check import (
    HealthSample,
    HealthTally,
    Rules,
    Verdict,
    check_health,
)
from fer_agent.updates.activation.journal import ClassifierFigures, Phase
from fer_agent.updates.activation.pending import PendingVersion, candidates, roll_back, settle
from fer_agent.updates.activation.swap import Ready, SwappableClassifier
from fer_agent.updates.activation.versions import Versions
from fer_agent.updates.activation.watch import ModelWatch
from fer_agent.vision.classifier import CropClassifier
from fer_agent.vision.records import EmotionScores, Frame, ModelIdentity, Tracks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fer_agent.models.store import StoredModel

    Stage = Callable[..., Path]

NAME = "tiny"


def load(model: StoredModel) -> Ready:
    """Load as `compose` does."""
    manifest = model.manifest
    identity = ModelIdentity(manifest.name, manifest.file().sha256)
    session = OnnxSession(model.verified_file())
    info = ModelInfo(name=manifest.name, sha256=manifest.file().sha256, version=manifest.version)
    return Ready(CropClassifier(session, manifest, identity=identity), info, manifest.labels)


def bring(store: Path, staged: Path) -> None:
    ModelChange(store, Untried()).activate_staged(staged, name=NAME)


def linked(store: Path) -> str:
    return find_model(NAME, store).manifest.version


def phase(store: Path) -> Phase:
    entry = journal.read(store, NAME)
    assert entry is not None
    return entry.phase


def frame(brightness: int = 90) -> tuple[Frame, Tracks]:
    tracks = Tracks(
        track_id=np.array([1], np.int64),
        xyxy=np.array([[10, 10, 60, 60]], np.float32),
        score=np.ones(1, np.float32),
        landmarks=np.full((1, 5, 2), np.nan, np.float32),
        frame_size=(100, 80),
    )
    return Frame(np.full((80, 100), brightness, np.uint8), captured_ns=1, number=0), tracks


class WatchingAgent:
    """The agent around a watch: frames, and who is told."""

    def __init__(
        self, store: Path, rules: Rules | None = None, load: Callable[[StoredModel], Ready] = load
    ) -> None:
        self.told: list[str | None] = []
        self.seen: list[str] = []
        self.watch = ModelWatch(
            store,
            NAME,
            load,
            rules=rules,
            frames=lambda: (len(self.seen), len(self.seen)),
            on_change=lambda ready: self.told.append(ready.info.version),
        )
        self.told.clear()  # of the first version

    def see(self, brightness: int = 90) -> str:
        """Process a frame; returns the hash of the model that saw it."""
        scores = self.watch.classifier.classify(*frame(brightness))
        self.seen.append(scores.model.sha256)
        return scores.model.sha256


@pytest.fixture
def proven(store: Path, stage: Stage) -> Path:
    """A store whose version 1.0.0 is confirmed."""
    bring(store, stage("1.0.0"))
    pending = settle(store, NAME)
    assert pending is not None
    pending.confirm()
    return store


def test_a_new_version_takes_over_between_frames_and_is_confirmed(
    proven: Path, stage: Stage
) -> None:
    agent = WatchingAgent(proven, Rules(confirm_s=1e-9))
    old = agent.see()
    agent.watch.tick()
    assert agent.told == []
    bring(proven, stage("1.1.0", labels=("happy", "sad", "neutral", "contempt")))
    agent.watch.tick()
    new = agent.see()
    assert (agent.told, new != old) == (["1.1.0"], True)
    assert phase(proven) is Phase.PENDING
    agent.watch.tick()
    assert phase(proven) is Phase.CONFIRMED
    agent.watch.close(orderly=True)
    assert linked(proven) == "1.1.0"


def test_a_pending_version_is_confirmed_before_it_runs_as_measured_again(
    proven: Path, stage: Stage
) -> None:
    measured: list[str] = []

    def load_outdated(model: StoredModel) -> Ready:
        def outdated() -> bool:
            return bool(measured) and measured.pop() == model.manifest.version

        return replace(load(model), outdated=outdated)

    agent = WatchingAgent(proven, Rules(), load_outdated)
    bring(proven, stage("1.1.0"))
    agent.watch.tick()
    measured.append("1.1.0")
    agent.see()
    agent.watch.tick()
    assert (phase(proven), agent.told, measured) == (Phase.PENDING, ["1.1.0"], ["1.1.0"])
    agent.watch.close(orderly=True)
    agent = WatchingAgent(proven, Rules(confirm_s=1e-9), load_outdated)
    agent.see()
    agent.watch.tick()
    assert (phase(proven), agent.told, measured) == (Phase.CONFIRMED, ["1.1.0"], [])
    agent.watch.tick()
    assert agent.told == ["1.1.0"]


def test_no_frame_is_lost_while_versions_change(
    proven: Path, stage: Stage, wait_for: Callable[..., None]
) -> None:
    agent = WatchingAgent(proven)
    asked = [0, 0]
    stop = threading.Event()

    def run(pipeline: int) -> None:
        while not stop.is_set():
            asked[pipeline] += 1
            agent.see()

    pipelines = [threading.Thread(target=run, args=[number]) for number in range(2)]
    for pipeline in pipelines:
        pipeline.start()
    try:
        for count, version in enumerate(("1.1.0", "1.2.0", "1.3.0"), start=1):
            wait_for(lambda count=count: len(set(agent.seen)) == count)
            bring(proven, stage(version))
            agent.watch.tick()
        wait_for(lambda: len(set(agent.seen)) == 4)
    finally:
        stop.set()
        for pipeline in pipelines:
            pipeline.join()
    assert agent.told == ["1.1.0", "1.2.0", "1.3.0"]
    assert len(agent.seen) == sum(asked)
    agent.watch.close(orderly=True)


def test_a_version_that_fails_while_running_goes_back_without_losing_a_frame(
    proven: Path, stage: Stage
) -> None:
    agent = WatchingAgent(proven)
    old = agent.see()
    bring(proven, stage("1.1.0", fails_on_white=True))
    agent.watch.tick()
    assert agent.see() != old
    assert agent.see(brightness=255) == old, "the frame that broke it is seen by the one before"
    agent.watch.tick()
    assert (linked(proven), agent.see(), agent.told) == ("1.0.0", old, ["1.1.0", "1.0.0"])
    rejected = state.update_state(proven, NAME, Versions(proven, NAME).current()).last_rejected
    assert rejected is not None
    assert "failed while running" in rejected.reason
    assert rejected.build.version == "1.1.0"


def test_a_model_that_has_proved_itself_and_fails_ends_the_pipeline(
    proven: Path, stage: Stage
) -> None:
    bring(proven, stage("1.1.0", fails_on_white=True))
    agent = WatchingAgent(proven, Rules(confirm_s=1e-9))
    agent.see()
    agent.watch.tick()
    assert phase(proven) is Phase.CONFIRMED
    with pytest.raises(InferenceError):
        agent.see(brightness=255)


def test_an_agent_started_with_a_pending_version_also_has_the_version_before_to_fall_back_to(
    proven: Path, stage: Stage
) -> None:
    old = WatchingAgent(proven).see()
    bring(proven, stage("1.1.0", fails_on_white=True))
    agent = WatchingAgent(proven)
    assert agent.see() != old
    assert agent.see(brightness=255) == old


def test_the_first_update_of_a_shipped_model_falls_back_to_the_shipped_one(
    store: Path, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    stage("1.0.0").rename(shipped / NAME)
    monkeypatch.setattr("fer_agent.models.store.shipped_folder", lambda: shipped)
    old = find_model(NAME).manifest.file().sha256
    bring(store, stage("1.1.0", fails_on_white=True))
    agent = WatchingAgent(store)
    assert agent.see() != old
    assert agent.see(brightness=255) == old


def test_a_version_that_cannot_be_loaded_goes_back_and_the_old_one_goes_on(
    proven: Path, stage: Stage
) -> None:
    agent = WatchingAgent(proven)
    old = agent.see()
    bring(proven, stage("1.1.0"))
    (proven / NAME / "model.onnx").write_bytes(b"rotten")
    agent.watch.tick()
    assert (linked(proven), agent.see(), agent.told) == ("1.0.0", old, [])


def test_an_agent_that_died_with_a_pending_version_starts_with_the_version_before(
    proven: Path, stage: Stage
) -> None:
    bring(proven, stage("1.1.0"))
    dead = WatchingAgent(proven)
    assert phase(proven) is Phase.PENDING
    dead.watch.close(orderly=False)
    del dead
    agent = WatchingAgent(proven)
    assert agent.watch.ready.info.version == "1.0.0"
    assert phase(proven) is Phase.ROLLED_BACK
    (rejected,) = state.rejected(proven).refused
    assert "died" in rejected.reason


def test_an_agent_that_ended_in_order_leaves_the_version_pending(
    proven: Path, stage: Stage
) -> None:
    bring(proven, stage("1.1.0"))
    for _ in range(3):
        agent = WatchingAgent(proven)
        assert agent.watch.ready.info.version == "1.1.0"
        assert phase(proven) is Phase.PENDING
        agent.watch.close(orderly=True)
        assert phase(proven) is Phase.SWITCHED


def test_a_second_agent_beside_neither_watches_nor_condemns(proven: Path, stage: Stage) -> None:
    bring(proven, stage("1.1.0"))
    first, second = WatchingAgent(proven), WatchingAgent(proven, Rules(confirm_s=1e-9))
    second.see()
    second.watch.tick()
    second.watch.close(orderly=False)
    assert phase(proven) is Phase.PENDING
    first.watch.close(orderly=True)
    assert linked(proven) == "1.1.0"


def test_a_pending_version_survives_one_power_cut_and_no_second(
    proven: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring(proven, stage("1.1.0"))
    versions = []
    for boot in ("a", "b", "c"):
        monkeypatch.setattr(journal, "boot_id", lambda boot=boot: boot)
        agent = WatchingAgent(proven)
        versions.append(agent.watch.ready.info.version)
        agent.watch.close(orderly=False)
        del agent
    assert versions == ["1.1.0", "1.1.0", "1.0.0"]


def test_a_damaged_version_is_passed_over_for_the_one_before(proven: Path, stage: Stage) -> None:
    bring(proven, stage("1.1.0"))
    pending = settle(proven, NAME)
    assert pending is not None
    pending.confirm()
    (proven / NAME / "model.onnx").write_bytes(b"rotten")
    assert WatchingAgent(proven).watch.ready.info.version == "1.0.0"
    assert not state.rejected(proven).refused, "the same version may be fetched again"


def test_with_nothing_whole_the_error_is_that_of_the_linked_version(proven: Path) -> None:
    (proven / NAME / "model.onnx").write_bytes(b"rotten")
    with pytest.raises(ModelError, match="6 bytes"):
        WatchingAgent(proven)


def test_a_rollback_by_hand_reaches_the_running_agent(proven: Path, stage: Stage) -> None:
    bring(proven, stage("1.1.0"))
    agent = WatchingAgent(proven)
    roll_back(proven, NAME, "rolled back by hand")
    agent.watch.tick()
    assert agent.told == ["1.0.0"]
    agent.watch.close(orderly=True)
    assert phase(proven) is Phase.ROLLED_BACK


def test_an_interrupted_switch_leaves_the_unconfirmed_version_pending(
    proven: Path, stage: Stage
) -> None:
    """The power fails between journal and link, while the linked version is unproven itself."""
    bring(proven, stage("1.1.0"))
    assert settle(proven, NAME) is not None
    written = journal.read(proven, NAME)
    bring(proven, stage("1.2.0"))
    assert written is not None
    Versions(proven, NAME).point(written.candidate.key)
    assert WatchingAgent(proven).watch.ready.info.version == "1.0.0", "1.1.0 died while pending"


def test_an_agent_whose_store_cannot_be_written_runs_all_the_same(
    proven: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring(proven, stage("1.1.0"))

    def refuse(*_arguments: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(journal, "write", refuse)
    agent = WatchingAgent(proven)
    agent.see()
    agent.watch.tick()
    assert agent.watch.ready.info.version == "1.1.0"


def test_without_a_link_the_store_offers_what_it_always_did(store: Path, stage: Stage) -> None:
    stage("3.0.0").rename(store / NAME)
    assert [model.manifest.version for model in candidates(store, NAME)] == ["3.0.0"]


def test_a_rejected_version_is_none_to_start_with(store: Path, stage: Stage) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        bring(store, stage(version))
        pending = settle(store, NAME)
        assert pending is not None
        pending.confirm()
    roll_back(store, NAME, "rolled back by hand")
    assert [model.manifest.version for model in candidates(store, NAME)] == ["1.1.0", "1.0.0"]


def test_a_linked_version_starts_without_its_journal(proven: Path) -> None:
    journal.forget(proven, NAME)
    assert [model.manifest.version for model in candidates(proven, NAME)] == ["1.0.0"]


@pytest.mark.parametrize(
    "finish",
    [
        PendingVersion.confirm,
        PendingVersion.end,
        PendingVersion.drop,
        lambda pending: pending.roll_back("slow"),
    ],
    ids=["confirmed", "left to the next start", "dropped", "rolled back"],
)
def test_the_next_version_is_watched_once_the_one_before_is_settled(
    proven: Path, stage: Stage, finish: Callable[[PendingVersion], None]
) -> None:
    bring(proven, stage("1.1.0"))
    before = settle(proven, NAME)
    assert before is not None
    finish(before)
    bring(proven, stage("1.2.0"))
    assert settle(proven, NAME) is not None


class Waits:
    """A classifier that takes a hundredth of a second."""

    def classify(self, _frame: Frame, tracks: Tracks) -> EmotionScores:
        time.sleep(0.01)
        probs = np.ones((len(tracks), 1), np.float32)
        return EmotionScores(("happy",), probs, ModelIdentity("net", "0" * 64))


def test_the_time_that_faces_take_is_counted_between_two_looks() -> None:
    classifier = SwappableClassifier(Waits())
    started_ns = time.perf_counter_ns()
    for _ in range(3):
        classifier.classify(*frame())
    took_ns = time.perf_counter_ns() - started_ns
    faces, faces_ns = classifier.take()
    assert faces == 3
    assert 30_000_000 <= faces_ns <= took_ns
    assert classifier.take() == (0, 0)


def tally(fps: float, face_ms: float, seconds: int = 100) -> HealthTally:
    total = HealthTally()
    for _ in range(seconds):
        total.add(HealthSample(1.0, 30, round(fps), 2, round(2 * face_ms * 1e6)))
    return total


BEFORE = ClassifierFigures(seconds=60.0, fps=20.0, face_ms=4.0)


@pytest.mark.parametrize(
    ("fps", "face_ms", "verdict"),
    [
        (20, 4.0, Verdict.CONFIRM),
        (17, 9.0, Verdict.CONFIRM),
        (10, 4.4, Verdict.CONFIRM),
        (10, 9.0, Verdict.SLOW),
    ],
    ids=["as before", "slower but keeps up", "more people in view", "slows the agent"],
)
def test_only_a_version_that_slows_the_agent_by_itself_goes_back(
    fps: float, face_ms: float, verdict: Verdict
) -> None:
    rules = Rules(confirm_s=90.0)
    assert check_health(tally(fps, face_ms), BEFORE, rules) is verdict
    assert check_health(tally(fps, face_ms, seconds=80), BEFORE, rules) is Verdict.WAIT
    assert check_health(tally(fps, face_ms), None, rules) is Verdict.CONFIRM


def test_time_without_frames_proves_nothing() -> None:
    total = HealthTally()
    for _ in range(1000):
        total.add(HealthSample(1.0, 0, 0, 0, 0))
    assert check_health(total, BEFORE, Rules(confirm_s=10.0)) is Verdict.WAIT


def test_seconds_in_which_frames_wait_count_against_a_version() -> None:
    total = tally(fps=20, face_ms=9.0, seconds=50)
    for _ in range(50):
        total.add(HealthSample(1.0, 30, 0, 0, 0))
    assert check_health(total, BEFORE, Rules(confirm_s=90.0)) is Verdict.SLOW


def test_the_version_before_is_judged_by_its_last_minute() -> None:
    total = HealthTally(window_s=60.0)
    for fps in [5] * 100 + [20] * 61:
        total.add(HealthSample(1.0, 30, fps, 1, 4_000_000))
    figures = total.figures()
    assert figures is not None
    assert (figures.seconds, figures.fps) == (60.0, 20.0)


def test_the_journal_takes_no_step_out_of_order() -> None:
    build = journal.ModelVersion(version="1.0.0", manifest_sha256="0" * 64)
    entry = journal.JournalEntry(
        name=NAME, phase=Phase.SWITCHED, candidate=build, since=journal.now()
    )
    with pytest.raises(ValueError, match="confirmed cannot follow switched"):
        entry.at(Phase.CONFIRMED)
