"""Bringing a version in: what is refused and remembered, what stays, who may do it when."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from untried import Untried

from fer_agent.errors import ConfigError, TemporaryError, UsageError, VerificationError
from fer_agent.models.store import find_model
from fer_agent.system import durable
from fer_agent.updates.activation import journal, state
from fer_agent.updates.activation.change import ModelChange, RejectedBeforeError
from fer_agent.updates.activation.journal import Phase
from fer_agent.updates.activation.pending import roll_back
from fer_agent.updates.activation.self_test import SelfTest, SelfTestError
from fer_agent.updates.activation.versions import Keep, Versions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Stage = Callable[..., Path]

NAME = "tiny"
# Other work on the machine must not decide whether the good ones pass.
PATIENT = SelfTest(slowdown=20.0)


def linked_version(store: Path) -> str:
    return find_model(NAME, store).manifest.version


def test_a_version_goes_through_every_step_and_is_found(store: Path, stage: Stage) -> None:
    steps: list[str] = []
    change = ModelChange(store, PATIENT, on_step=steps.append)
    staged = stage("1.0.0")
    build = change.activate_staged(staged, name=NAME)
    assert steps == ["verified", "adopted", "tried", "switched", "linked", "pruned"]
    assert linked_version(store) == "1.0.0"
    assert (store / NAME).readlink().parts == (".versions", NAME, build.key)
    assert not staged.exists()
    told = state.update_state(store, NAME, Versions(store, NAME).current())
    assert (told.current, told.pending, told.last_rejected) == (build, True, None)


def test_the_same_version_again_changes_nothing(store: Path, stage: Stage) -> None:
    change = ModelChange(store, Untried())
    change.activate_staged(stage("1.0.0"), name=NAME)
    before = journal.read(store, NAME)
    change.activate_staged(stage("1.0.0"), name=NAME)
    assert journal.read(store, NAME) == before


def test_a_half_version_left_in_the_store_is_replaced(store: Path, stage: Stage) -> None:
    change = ModelChange(store, Untried())
    build = change.activate_staged(stage("1.0.0"), name=NAME)
    (Versions(store, NAME).folder(build.key) / "model.onnx").write_bytes(b"rotten")
    Versions(store, NAME).point(None)
    change.activate_staged(stage("1.0.0"), name=NAME)
    assert find_model(NAME, store).verified_file().is_file()


@pytest.mark.parametrize(
    ("traits", "words"),
    [
        ({"golden_off": 0.5}, "off by 0.5"),
        ({"work": 60}, "times as long as the current model"),
    ],
    ids=["golden inputs", "too slow"],
)
def test_a_version_that_fails_its_self_test_is_remembered_until_a_new_one_comes(
    store: Path, stage: Stage, traits: dict[str, float], words: str
) -> None:
    change = ModelChange(store, PATIENT)
    change.activate_staged(stage("1.0.0"), name=NAME)
    with pytest.raises(SelfTestError, match=words):
        change.activate_staged(stage("1.1.0", **traits), name=NAME)
    assert linked_version(store) == "1.0.0"
    told = state.update_state(store, NAME, Versions(store, NAME).current())
    assert told.last_rejected is not None
    assert told.last_rejected.build.version == "1.1.0"
    tried: list[str] = []
    with pytest.raises(RejectedBeforeError, match=words):
        ModelChange(store, PATIENT, on_step=tried.append).activate_staged(
            stage("1.1.0", **traits), name=NAME
        )
    assert "adopted" not in tried
    change.activate_staged(stage("1.2.0"), name=NAME)
    assert linked_version(store) == "1.2.0"


def test_a_self_test_that_does_not_end_or_wants_too_much_memory_rejects_the_version(
    store: Path, stage: Stage
) -> None:
    staged = stage("1.0.0")
    with pytest.raises(SelfTestError, match=r"within 0\.05 s"):
        SelfTest(limit_s=0.05).run(staged, None)
    with pytest.raises(SelfTestError, match=r"memory|ended with|crashed with|MemoryError|alloc"):
        SelfTest(memory_bytes=40 << 20).run(staged, None)


def test_files_that_are_not_the_manifests_are_refused_but_may_come_again(
    store: Path, stage: Stage
) -> None:
    change = ModelChange(store, Untried())
    staged = stage("1.0.0")
    network = staged / "model.onnx"
    whole = network.read_bytes()
    network.write_bytes(whole[:-1] + b"\0")
    with pytest.raises(VerificationError, match="sha256"):
        change.activate_staged(staged, name=NAME)
    assert not (store / NAME).exists()
    network.write_bytes(whole)
    change.activate_staged(staged, name=NAME)
    assert linked_version(store) == "1.0.0"


def test_another_models_manifest_is_refused(store: Path, stage: Stage) -> None:
    with pytest.raises(VerificationError, match="holds the model other, not tiny"):
        ModelChange(store, Untried()).activate_staged(stage("1.0.0", name="other"), name=NAME)


def test_a_folder_made_by_hand_is_left_alone(store: Path, stage: Stage) -> None:
    stage("9.0.0").rename(store / NAME)
    with pytest.raises(ConfigError, match="made by hand"):
        ModelChange(store, Untried()).activate_staged(stage("1.0.0"), name=NAME)
    assert linked_version(store) == "9.0.0"


def test_of_two_activations_at_once_the_second_is_told_to_come_back(
    store: Path, stage: Stage
) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def wait(step: str) -> None:
        if step == "adopted":
            reached.set()
            assert go_on.wait(60)

    first, second = stage("1.0.0"), stage("1.1.0")
    worker = threading.Thread(
        target=lambda: ModelChange(store, Untried(), on_step=wait).activate_staged(first, name=NAME)
    )
    worker.start()
    try:
        assert reached.wait(60)
        with pytest.raises(TemporaryError, match="another activation") as caught:
            ModelChange(store, Untried()).activate_staged(second, name=NAME)
        assert caught.value.exit_code == 75
    finally:
        go_on.set()
        worker.join()
    assert linked_version(store) == "1.0.0"
    assert ModelChange(store, Untried()).activate_staged(second, name=NAME).version == "1.1.0"


@pytest.mark.parametrize("count", [2, 3])
def test_old_versions_are_kept_by_count(store: Path, stage: Stage, count: int) -> None:
    change = ModelChange(store, Untried(), Keep(versions=count))
    for version in ("1.0.0", "1.1.0", "1.9.0", "1.10.0"):
        change.activate_staged(stage(version), name=NAME)
        confirm(store)
    kept = [key.partition("-")[0] for key in Versions(store, NAME).installed()]
    assert kept == ["1.10.0", "1.9.0", "1.1.0"][:count]
    assert not list((store / ".staging").iterdir())


@pytest.mark.parametrize(("versions_of_room", "count"), [(0.1, 2), (3.5, 3)])
def test_old_versions_are_kept_by_size_but_never_the_one_to_go_back_to(
    store: Path, stage: Stage, versions_of_room: float, count: int
) -> None:
    staged = stage("1.0.0")
    size_bytes = sum(path.stat().st_size for path in staged.iterdir())
    keep = Keep(versions=10, bytes=round(versions_of_room * size_bytes))
    change = ModelChange(store, Untried(), keep)
    for folder in (staged, stage("1.1.0"), stage("1.2.0"), stage("1.3.0")):
        change.activate_staged(folder, name=NAME)
        confirm(store)
    kept = [key.partition("-")[0] for key in Versions(store, NAME).installed()]
    assert kept == ["1.3.0", "1.2.0", "1.1.0"][:count]


@pytest.mark.parametrize("target", ["elsewhere/1.0.0-0123abcd", ".versions/tiny/mine"])
def test_a_link_made_by_hand_names_no_version_of_the_store(store: Path, target: str) -> None:
    store.mkdir()
    (store / NAME).symlink_to(target)
    assert Versions(store, NAME).linked() is None


def confirm(store: Path) -> None:
    """Do what a running agent does after its good minutes."""
    entry = journal.read(store, NAME)
    assert entry is not None
    journal.write(store, entry.at(Phase.PENDING).at(Phase.CONFIRMED))


def test_rollback_by_hand_goes_back_and_is_remembered(store: Path, stage: Stage) -> None:
    change = ModelChange(store, Untried())
    for version in ("1.0.0", "1.1.0"):
        change.activate_staged(stage(version), name=NAME)
        confirm(store)
    build = roll_back(store, NAME, "rolled back by hand")
    assert build is not None
    assert (build.version, linked_version(store)) == ("1.0.0", "1.0.0")
    with pytest.raises(RejectedBeforeError, match="by hand"):
        change.activate_staged(stage("1.1.0"), name=NAME)
    # Nobody ships this model, so there is nothing before the first version.
    with pytest.raises(UsageError, match="only version"):
        roll_back(store, NAME, "rolled back by hand")


def test_a_person_may_try_a_refused_version_again(store: Path, stage: Stage) -> None:
    change = ModelChange(store, Untried())
    for version in ("1.0.0", "1.1.0"):
        change.activate_staged(stage(version), name=NAME)
        confirm(store)
    roll_back(store, NAME, "rolled back by hand")
    assert change.activate_installed(NAME).version == "1.0.0", "refused ones are passed over"
    assert change.activate_installed(NAME, "1.1.0").version == "1.1.0"
    assert linked_version(store) == "1.1.0"
    assert not state.rejected(store).refused


def test_the_shipped_version_may_be_asked_for_where_it_runs_already(store: Path) -> None:
    shipped = find_model("microexpnet-ferplus").manifest
    build = ModelChange(store, Untried()).activate_installed(shipped.name, shipped.version)
    assert build.version == shipped.version
    assert find_model(shipped.name, store).manifest == shipped


def test_a_version_that_is_not_there_is_named_with_those_that_are(
    store: Path, stage: Stage
) -> None:
    change = ModelChange(store, Untried())
    change.activate_staged(stage("1.0.0"), name=NAME)
    with pytest.raises(UsageError, match=r"no version 3\.0\.0 of tiny") as caught:
        change.activate_installed(NAME, "3.0.0")
    assert "1.0.0" in caught.value.remedy


def test_an_unproven_version_is_none_to_go_back_to(store: Path, stage: Stage) -> None:
    change = ModelChange(store, Untried())
    change.activate_staged(stage("1.0.0"), name=NAME)
    confirm(store)
    change.activate_staged(stage("1.1.0"), name=NAME)
    change.activate_staged(stage("1.2.0"), name=NAME)
    build = roll_back(store, NAME, "rolled back by hand")
    assert build is not None
    assert build.version == "1.0.0"


def test_without_a_version_of_its_own_a_model_has_none_to_go_back_to(store: Path) -> None:
    with pytest.raises(UsageError, match="runs in the version shipped with the agent"):
        roll_back(store, "microexpnet-ferplus", "rolled back by hand")


def test_a_store_that_cannot_be_written_is_a_configuration_fault(
    tmp_path: Path, stage: Stage, store: Path
) -> None:
    staged = stage("1.0.0")
    (store / ".state").write_text("in the way")
    with pytest.raises(ConfigError, match="cannot write in"):
        ModelChange(store, Untried()).activate_staged(staged, name=NAME)


def test_a_second_holder_does_not_get_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "lock"
    with durable.locked(path, wait=False) as first, durable.locked(path, wait=False) as second:
        assert (first, second) == (True, False)
    with durable.locked(path, wait=False) as third:
        assert third
