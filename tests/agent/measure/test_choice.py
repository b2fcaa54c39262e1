from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fer_agent.app.networks import load_classifier
from fer_agent.config.model import ClassifierConfig
from fer_agent.errors import (
    ModelContractError,
    ModelFileError,
    TemporaryError,
    UnavailableError,
)
from fer_agent.inference.opening import Opener
from fer_agent.inference.setting import PLAIN, Setting
from fer_agent.measure import record
from fer_agent.measure.fingerprint import model_sha256, of_this_board
from fer_agent.measure.record import MeasuredChoice, Measurement, best
from fer_agent.measure.renewal import renew
from fer_agent.measure.resolve import resolve
from fer_agent.measure.search import SettingSearch, settings, with_loss
from fer_agent.models.manifest import read_manifest
from fer_agent.models.store import StoredModel, file_sha256, find_model
from fer_agent.system import durable
from fer_agent.updates.activation.watch import ModelWatch
from fer_agent.vision.records import Frame, Tracks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fer_agent.updates.activation.swap import Ready

NAME = "microexpnet-fer2013"
INT8 = Setting(precision="int8", threads=2)


@pytest.fixture
def model(tmp_path: Path) -> StoredModel:
    """The shipped model without its FP16 file, in a store of its own."""
    folder = tmp_path / "store" / NAME
    shutil.copytree(find_model(NAME).folder, folder)
    (folder / "model.fp16.onnx").unlink()
    return alter(folder, lambda manifest: manifest["files"].pop())


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0})


def alter(folder: Path, change: Callable[[dict[str, Any]], object]) -> StoredModel:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")
    return StoredModel(folder=folder, manifest=read_manifest(path))


def put_file(model: StoredModel, precision: str, content: bytes) -> StoredModel:
    """Replace a file and let the manifest name the new one."""
    path = model.folder / model.manifest.file(precision).path
    path.write_bytes(content)

    def rename(manifest: dict[str, Any]) -> None:
        for entry in manifest["files"]:
            if entry["precision"] == precision:
                entry["sha256"] = file_sha256(path)
                entry["bytes"] = len(content)

    return alter(model.folder, rename)


def recorded(model: StoredModel, setting: Setting) -> Path:
    """Record a choice for this board; returns the store."""
    store = model.folder.parent
    choice = MeasuredChoice(
        model=NAME,
        version=model.manifest.version,
        created="2026-01-01T00:00:00+00:00",
        fingerprint=of_this_board(model.manifest),
        setting=setting,
        measured=(),
    )
    record.write(store, choice)
    return store


def timed(latency_ms: float | None, problem: str = "", **setting: Any) -> Measurement:
    return Measurement(setting=Setting(**setting), latency_ms=latency_ms, problem=problem)


def test_the_fastest_setting_is_chosen_whatever_its_precision() -> None:
    slow_int8 = [timed(1.0), timed(1.3, precision="int8"), timed(6.0, precision="fp16")]
    assert best(slow_int8) == PLAIN
    assert best([timed(1.0), timed(0.6, precision="int8")]) == Setting(precision="int8")


def test_another_thread_must_be_worth_its_core() -> None:
    assert best([timed(1.0), timed(0.95, threads=2)]) == PLAIN
    assert best([timed(1.0), timed(0.8, threads=2)]) == Setting(threads=2)
    assert best([timed(1.0), timed(0.8, threads=2), timed(0.78, threads=4)]).threads == 2


def test_a_setting_with_a_problem_is_never_chosen() -> None:
    wrong = timed(0.1, problem="does not agree with FP32", precision="int8")
    assert best([timed(1.0), wrong, timed(None, runtime="tensorrt")]) == PLAIN
    with pytest.raises(ModelContractError, match="does not agree with FP32") as caught:
        best([wrong])
    assert caught.value.remedy


def test_settings_are_tried_with_plain_fp32_first(model: StoredModel) -> None:
    tried = settings(model.manifest, ["onnx", "tensorrt"], cores=6)
    assert tried[0] == PLAIN
    assert {one.threads for one in tried if one.precision == "int8"} == {1, 2, 4}
    assert [one for one in tried if one.runtime == "tensorrt"] == [Setting(runtime="tensorrt")]
    assert len(tried) == 7
    assert len(settings(model.manifest, ["onnx"], cores=1)) == 2


@pytest.mark.usefixtures("one_core")
def test_build_records_what_it_measured_and_run_uses_it(model: StoredModel) -> None:
    told: list[Measurement] = []
    store = model.folder.parent
    choice = SettingSearch(runs=10, on_end=told.append).run(model, store, ["onnx"])
    assert record.read(store, NAME, model_sha256(model.manifest)) == choice
    assert tuple(told) == choice.measured
    assert all(one.latency_ms and not one.problem for one in told), told
    assert resolve(ClassifierConfig(), model.manifest, store) == choice.setting


@pytest.mark.usefixtures("one_core")
def test_a_file_that_computes_something_else_is_out_of_the_question(model: StoredModel) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx comes with the trainer extra")
    graph = onnx.load(str(model.verified_file("fp32")))
    (last,) = (one for one in graph.graph.initializer if list(one.dims) == [7])
    swapped = onnx.numpy_helper.to_array(last)[::-1] - 3
    last.CopyFrom(onnx.numpy_helper.from_array(swapped.copy(), last.name))
    altered = put_file(model, "int8", graph.SerializeToString())
    choice = SettingSearch(runs=10).run(altered, model.folder.parent, ["onnx"])
    problems = {one.setting.precision: one.problem for one in choice.measured}
    assert problems == {"fp32": "", "int8": "does not agree with FP32"}
    assert choice.setting.precision == "fp32"


def test_accuracy_lost_beyond_the_limit_rules_a_file_out(model: StoredModel) -> None:
    def tell(manifest: dict[str, Any]) -> None:
        manifest["files"][0]["validation_accuracy"] = 0.63
        manifest["files"][1]["validation_accuracy"] = 0.60

    told = alter(model.folder, tell).manifest
    measurement = timed(0.5, precision="int8")
    strict = with_loss(told, measurement, 0.01)
    assert strict.problem == "loses 3.00 points of accuracy"
    assert with_loss(told, measurement, 0.05).problem == ""

    def forget(manifest: dict[str, Any]) -> None:
        for file in manifest["files"]:
            del file["validation_accuracy"]

    untold = alter(model.folder, forget).manifest
    assert with_loss(untold, measurement, 0.01).accuracy_lost is None


def test_a_damaged_file_ends_the_build_and_keeps_the_old_choice(model: StoredModel) -> None:
    store = recorded(model, INT8)
    (model.folder / "model.int8.onnx").write_bytes(b"damaged")
    with pytest.raises(ModelFileError, match="7 bytes"):
        SettingSearch(runs=10).run(model, store, ["onnx"])
    choice = record.latest(store, NAME)
    assert choice is not None
    assert choice.setting == INT8


def test_a_runtime_that_takes_its_process_down_is_a_problem_and_not_the_end(
    model: StoredModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = "#!/bin/sh\nkill -SEGV $$\n"
    (tmp_path / "python").write_text(code)
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    measurement = SettingSearch(runs=10).attempt(model, tmp_path, PLAIN)
    assert measurement.problem == "crashed with SIGSEGV"
    (tmp_path / "python").write_text("#!/bin/sh\necho went wrong >&2\nexit 3\n")
    assert (
        SettingSearch(runs=10).attempt(model, tmp_path, PLAIN).problem == "ended with 3: went wrong"
    )


def test_two_builds_at_once_are_refused(model: StoredModel) -> None:
    store = model.folder.parent
    lock = record.lock_of(store, NAME)
    with durable.locked(lock, wait=False), pytest.raises(TemporaryError, match="under way"):
        SettingSearch(runs=10).run(model, store, ["onnx"])


def test_without_a_measurement_fp32_runs_on_one_thread_and_the_log_says_so(
    model: StoredModel, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        assert resolve(ClassifierConfig(), model.manifest, model.folder.parent) == PLAIN
    assert [line for line in caplog.messages if "fer-agent models build" in line]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"board": "Raspberry Pi 5"}, "the board"),
        ({"cpu": "Cortex-A76"}, "the processor"),
        ({"cores": 99}, "the number of cores"),
        ({"runtimes": {"onnxruntime": "1.0"}}, "a runtime"),
        ({"model_sha256": "0" * 64}, "the model"),
        ({"agent_version": "0.0.1"}, "the agent"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_choice_made_under_other_circumstances_is_not_used(
    model: StoredModel, caplog: pytest.LogCaptureFixture, change: dict[str, Any], word: str
) -> None:
    store = recorded(model, INT8)
    choice = record.latest(store, NAME)
    assert choice is not None
    other = choice.fingerprint.model_copy(update=change)
    changed = choice.model_copy(update={"fingerprint": other})
    record.path_of(store, NAME, model_sha256(model.manifest)).write_text(changed.model_dump_json())
    with caplog.at_level("INFO"):
        assert resolve(ClassifierConfig(), model.manifest, store) == PLAIN
    assert re.search(rf"{word}( \(.+, here .+\))? changed since", caplog.text)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"schema_version": 9}', b"\xff\xfe"])
def test_a_record_that_cannot_be_read_is_no_record(model: StoredModel, content: bytes) -> None:
    store = recorded(model, INT8)
    record.path_of(store, NAME, model_sha256(model.manifest)).write_bytes(content)
    assert resolve(ClassifierConfig(), model.manifest, store) == PLAIN


def test_what_the_configuration_names_counts_more_than_the_record(model: StoredModel) -> None:
    store = recorded(model, INT8)
    take = partial(resolve, manifest=model.manifest, store=store)
    assert take(ClassifierConfig()) == INT8
    assert take(ClassifierConfig(threads=1)) == Setting(precision="int8", threads=1)
    assert take(ClassifierConfig(precision="fp32")) == Setting(threads=2)
    named = ClassifierConfig(precision="fp32", threads=1, runtime="onnx")
    assert take(named) == PLAIN


def test_the_agent_loads_the_chosen_file(model: StoredModel) -> None:
    store = recorded(model, INT8)
    ready = load_classifier(ClassifierConfig(), Opener(store), model)
    assert ready.info.precision == "int8"
    assert ready.info.sha256 == model.manifest.file("int8").sha256


def seen(watch: ModelWatch) -> str:
    """Classify a frame; returns the hash of the file that did."""
    tracks = Tracks(
        track_id=np.ones(1, np.int64),
        xyxy=np.array([[10, 10, 90, 90]], np.float32),
        score=np.ones(1, np.float32),
        landmarks=np.zeros((1, 5, 2), np.float32),
        frame_size=(100, 100),
    )
    frame = Frame(np.full((100, 100), 90, np.uint8), captured_ns=1, number=0)
    scores = watch.classifier.classify(frame, tracks)
    assert scores.model is not None
    return scores.model.sha256


def running(model: StoredModel, config: ClassifierConfig, told: list[Ready]) -> ModelWatch:
    """Watch a model as a running agent does."""
    store = model.folder.parent
    load = partial(load_classifier, config, Opener(store))
    watch = ModelWatch(store, NAME, load, on_change=told.append)
    told.clear()  # of the first version
    return watch


def test_a_running_agent_follows_a_new_record_and_one_that_is_gone(model: StoredModel) -> None:
    told: list[Ready] = []
    watch = running(model, ClassifierConfig(), told)
    watch.tick()
    assert (watch.ready.setting, told) == (PLAIN, [])

    store = recorded(model, INT8)
    watch.tick()
    assert [(one.setting, one.info.precision) for one in told] == [(INT8, "int8")]
    assert told[0].info.sha256 == model.manifest.file("int8").sha256
    assert seen(watch) == told[0].info.sha256
    watch.tick()
    assert len(told) == 1

    record.path_of(store, NAME, model_sha256(model.manifest)).unlink()
    watch.tick()
    assert watch.ready.setting == PLAIN
    assert len(told) == 2


def test_a_record_that_cannot_be_followed_changes_nothing_and_is_told_once(
    model: StoredModel, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Ready] = []
    watch = running(model, ClassifierConfig(), told)
    recorded(model, INT8)
    (model.folder / "model.int8.onnx").write_bytes(b"damaged")
    for _ in range(3):
        watch.tick()
    assert (told, seen(watch)) == ([], model.manifest.file("fp32").sha256)
    assert caplog.text.count(f"{NAME} goes on as {PLAIN}") == 1


def test_a_configuration_that_leaves_nothing_open_follows_no_record(model: StoredModel) -> None:
    told: list[Ready] = []
    named = ClassifierConfig(precision="fp32", threads=1, runtime="onnx")
    watch = running(model, named, told)
    recorded(model, INT8)
    watch.tick()
    assert told == []


@pytest.fixture
def start(model: StoredModel, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start `fer-agent models build` over the store."""

    def start_build(*arguments: str) -> subprocess.Popen[str]:
        kept = {name: text for name, text in os.environ.items() if not name.startswith("FER_")}
        env = {
            "XDG_CONFIG_HOME": str(tmp_path),
            "FER_AGENT__MODELS__PATH": str(model.folder.parent),
        }
        # A shell in the background lets its children ignore Ctrl-C; a terminal does not.
        code = (
            "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "from fer_agent.cli import main; main()"
        )
        return subprocess.Popen(
            [sys.executable, "-c", code, "models", "build", *arguments],
            env=kept | env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return start_build


def test_command_prints_the_choice_as_json(
    start: Callable[..., subprocess.Popen[str]], model: StoredModel
) -> None:
    process = start("--model", NAME, "--runs", "10", "--json")
    stdout, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stderr
    choice = MeasuredChoice.model_validate_json(stdout)
    assert choice == record.latest(model.folder.parent, NAME)
    assert "[1/" in stderr


def test_an_interrupted_build_leaves_nothing(
    start: Callable[..., subprocess.Popen[str]], model: StoredModel
) -> None:
    process = start("--model", NAME, "--runs", "100000")
    assert process.stderr is not None
    seen = ""
    while "[1/" not in seen:
        seen += process.stderr.read(1)
        assert process.poll() is None, seen
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=300)
    assert process.returncode not in (0, 70)
    folder = record.lock_of(model.folder.parent, NAME).parent
    assert [path.suffix for path in folder.iterdir()] == [".lock"]


def test_an_unknown_model_is_named(
    fer_agent: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = fer_agent("models", "build", "--model", "huge")
    assert done.returncode == 78
    assert "no model named 'huge'" in done.stderr


def quick(**traits: Any) -> SettingSearch:
    return SettingSearch(runs=10, **traits)


@pytest.mark.usefixtures("one_core")
def test_what_was_measured_here_is_measured_again_once_something_changed(
    model: StoredModel,
) -> None:
    store = model.folder.parent
    again = partial(renew, ClassifierConfig(), model, store, quick())
    assert again() is None, "never measured, so nobody asked for it"
    recorded(model, INT8)
    assert again() is None, "nothing changed"
    known = record.latest(store, NAME)
    assert known is not None
    older = known.fingerprint.model_copy(update={"runtimes": {"onnxruntime": "1.0"}})
    record.write(store, known.model_copy(update={"fingerprint": older, "limit": 0.05}))
    choice = again()
    assert choice is not None
    assert choice == record.read(store, NAME, model_sha256(model.manifest))
    assert choice.fingerprint == of_this_board(model.manifest)
    assert choice.limit == 0.05
    assert all(one.latency_ms for one in choice.measured)
    assert again() is None


@pytest.mark.usefixtures("one_core")
def test_a_new_content_is_measured_beside_the_one_that_runs(model: StoredModel) -> None:
    store = recorded(model, INT8)
    before = model.manifest
    graph = (model.folder / "model.int8.onnx").read_bytes()
    newer = put_file(model, "fp32", graph)
    assert resolve(ClassifierConfig(), newer.manifest, store) == PLAIN
    assert renew(ClassifierConfig(), newer, store, quick()) is not None
    assert resolve(ClassifierConfig(), before, store) == INT8
    record.prune(store, NAME, {model_sha256(newer.manifest)})
    assert resolve(ClassifierConfig(), before, store) == PLAIN
    assert record.latest(store, NAME) is not None


def test_where_the_configuration_names_everything_nothing_is_measured(model: StoredModel) -> None:
    store = recorded(model, INT8)
    named = ClassifierConfig(precision="fp32", threads=1, runtime="onnx")
    newer = put_file(model, "fp32", (model.folder / "model.int8.onnx").read_bytes())
    assert renew(named, newer, store, quick()) is None


def test_a_process_that_does_not_reach_the_gpu_does_not_decide_against_it(
    model: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = recorded(model, Setting(runtime="tensorrt", precision="fp16"))
    newer = put_file(model, "fp32", (model.folder / "model.int8.onnx").read_bytes())
    monkeypatch.setattr(
        "fer_agent.measure.fingerprint.installed_runtimes", lambda: {"tensorrt": "10.3.0"}
    )
    with pytest.raises(UnavailableError, match="TensorRT, which was used here"):
        renew(ClassifierConfig(), newer, store, quick())
    assert record.read(store, NAME, model_sha256(newer.manifest)) is None


@pytest.mark.usefixtures("one_core")
def test_a_build_has_an_end_and_says_what_it_did_not_try(model: StoredModel) -> None:
    store = model.folder.parent
    with pytest.raises(ModelContractError, match="no time was left"):
        quick(within_s=0.0).run(model, store, ["onnx"])
    assert record.latest(store, NAME) is None


def test_a_configured_runtime_takes_what_is_best_on_it(model: StoredModel) -> None:
    store = recorded(model, INT8)
    choice = record.latest(store, NAME)
    assert choice is not None
    measured = (timed(0.5, precision="int8", threads=2), timed(0.9, runtime="tensorrt"))
    record.write(store, choice.model_copy(update={"measured": measured}))
    take = partial(resolve, manifest=model.manifest, store=store)
    assert take(ClassifierConfig(runtime="tensorrt")) == Setting(runtime="tensorrt")
    assert take(ClassifierConfig()) == INT8


def test_command_measures_again_only_what_changed(
    fer_agent: Callable[..., subprocess.CompletedProcess[str]], model: StoredModel
) -> None:
    store = model.folder.parent

    def said() -> str:
        words = ("models", "build", "--model", NAME, "--runs", 10, "--if-changed")
        done = fer_agent(*words, FER_AGENT__MODELS__PATH=str(store))
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert said() == f"{NAME}: nothing to measure again\n"
    recorded(model, INT8)
    known = record.latest(store, NAME)
    assert known is not None
    older = known.fingerprint.model_copy(update={"agent_version": "0.0.1"})
    record.write(store, known.model_copy(update={"fingerprint": older}))
    assert f"chosen for {NAME}" in said()
    assert said() == f"{NAME}: nothing to measure again\n"
