from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest

from fer_agent.app.networks import load_classifier
from fer_agent.bench.crowd import CrowdSource
from fer_agent.config.model import ClassifierConfig, DetectorConfig
from fer_agent.detector.yunet import YuNetDetector
from fer_agent.errors import ConfigError, InferenceError, UnavailableError
from fer_agent.inference import available, engine_build, engine_file, engines, golden
from fer_agent.inference.cuda import CudaThread, cuda_thread
from fer_agent.inference.engines import EngineError
from fer_agent.inference.onnx import OnnxSession
from fer_agent.inference.opening import Opener, open_model
from fer_agent.inference.setting import Setting
from fer_agent.inference.standby import StandbySession
from fer_agent.inference.tensorrt import TensorRtSession
from fer_agent.models.store import find_model
from fer_agent.vision.classifier import CropClassifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from fer_agent.models.store import StoredModel

NAME = "microexpnet-fer2013"
TRT = Setting(runtime="tensorrt")
HALF = Setting(runtime="tensorrt", precision="fp16")
PATIENCE_S = 600.0
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
def model() -> StoredModel:
    return find_model(NAME)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which a test leaves the shipped model's engine for the next ones."""
    return tmp_path_factory.mktemp("built")


@pytest.fixture
def open_built(
    gpu: Any, model: StoredModel, built: Path, tmp_path: Path
) -> Callable[[], TensorRtSession]:
    """A function that opens the shipped model's engine, built by a test before this one."""

    def opened() -> TensorRtSession:
        if not list(built.rglob("*.engine")):
            open_model(model, TRT, built, golden.of_model(model))
        if not (tmp_path / "store").exists():
            shutil.copytree(built, tmp_path / "store")
        session = open_model(model, TRT, tmp_path / "store", golden.of_model(model))
        assert isinstance(session, TensorRtSession)
        return session

    return opened


@pytest.fixture
def open_trt(gpu: Any, model: StoredModel, tmp_path: Path) -> Callable[..., TensorRtSession]:
    """A function that opens the shipped model on TensorRT, in a store of its own."""

    def opened(setting: Setting = TRT) -> TensorRtSession:
        session = open_model(model, setting, tmp_path / "store", golden.of_model(model))
        assert isinstance(session, TensorRtSession)
        return session

    return opened


def engine_folder(tmp_path: Path) -> Path:
    return tmp_path / "store" / ".state" / "engines"


def stored(tmp_path: Path) -> list[Path]:
    return sorted(engine_folder(tmp_path).glob("*.engine"))


def crops(count: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, 1, 48, 48), np.uint8)


@pytest.mark.parametrize(
    ("version", "precision"),
    [
        ("8.6.1", "fp16"),
        ("10.3.0", "fp32"),
        ("10.12.0", "fp16"),
        ("11.4.0", "fp32"),
        ("11.4.0", "fp16"),
    ],
)
def test_an_engine_computes_what_onnx_runtime_does(
    gpu: Any,
    open_trt: Callable[..., TensorRtSession],
    model: StoredModel,
    version: str,
    precision: Literal["fp32", "fp16"],
) -> None:
    gpu.set(version=version)
    session = open_trt(Setting(runtime="tensorrt", precision=precision))
    plain = OnnxSession(model.verified_file("fp32"))
    assert session.input_shape == (None, 1, 48, 48)
    assert session.input_dtype == np.uint8
    for count in (1, 3, 8, 19):  # one, some, the profile's most, and more
        logits = session.run(crops(count))["logits"]
        expected = plain.run(crops(count))["logits"]
        assert logits.shape == expected.shape
        limit = golden.TOLERANCES[precision].relative_difference * np.abs(expected).max()
        assert np.abs(logits - expected).max() <= limit


def test_switches_of_the_builder_follow_the_version() -> None:
    flags = engine_build.flags_of
    assert flags((8, 6, 1), "fp16") == flags((10, 11, 0), "fp16") == ("fp16-flag",)
    assert flags((10, 12, 0), "fp16") == flags((11, 4, 0), "fp16") == ("strongly-typed",)
    assert flags((10, 3, 0), "fp32") == ("no-tf32",)
    assert flags((11, 0, 0), "fp32") == ("no-tf32", "strongly-typed")
    assert engines.source_precision("fp16", (10, 3, 0)) == "fp32"
    assert engines.source_precision("fp16", (10, 12, 0)) == "fp16"


def test_an_engine_is_built_once(
    gpu: Any, open_trt: Callable[..., TensorRtSession], tmp_path: Path
) -> None:
    open_trt()
    (path,) = stored(tmp_path)
    gpu.set(fault="no-build")
    assert open_trt().run(crops(2))["logits"].shape == (2, 7)
    assert stored(tmp_path) == [path]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gpu": "Orin NX"}, "the GPU (Orin, here Orin NX)"),
        ({"version": "10.7.0"}, "TensorRT (10.3.0, here 10.7.0)"),
    ],
    ids=["gpu", "tensorrt"],
)
def test_an_engine_of_another_board_is_never_loaded_and_one_is_built_here(
    gpu: Any,
    open_built: Callable[[], TensorRtSession],
    open_trt: Callable[..., TensorRtSession],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    change: dict[str, str],
    words: str,
) -> None:
    open_built()
    before = stored(tmp_path)[0].read_bytes()
    gpu.set(**change)
    assert open_trt().run(crops(1))["logits"].shape == (1, 7)
    assert f"was built for something else: {words}; it is built again" in caplog.text
    assert stored(tmp_path)[0].read_bytes() != before
    assert len(stored(tmp_path)) == 1


def some_key(model_sha256: str = "0" * 64) -> engine_file.EngineKey:
    return engine_file.EngineKey(
        model_sha256=model_sha256,
        precision="fp32",
        profile=engines.rows_profile((1, 48, 48)),
        flags=(),
        tensorrt="10.3.0",
        cuda="12.6",
        gpu="Orin",
        compute_capability="8.7",
    )


def damaged_by(cut: str, content: bytes) -> bytes:
    return {
        "half": content[: len(content) // 2],
        "empty": b"",
        "one bit": content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
        "something else": b"<html>",
    }[cut]


@pytest.mark.parametrize("cut", ["half", "empty", "one bit", "something else"])
def test_a_damaged_engine_is_never_handed_on(
    tmp_path: Path, cut: str, caplog: pytest.LogCaptureFixture
) -> None:
    key = some_key()
    path = engine_file.path_of(tmp_path, key)
    engine_file.write(path, engine_file.Header(key=key, built="now", build_s=1.0), b"plan" * 99)
    whole = engine_file.read(path, key)
    assert whole is not None
    assert whole[1] == b"plan" * 99
    path.write_bytes(damaged_by(cut, path.read_bytes()))
    assert engine_file.read(path, key) is None
    assert "built again" in caplog.text


def test_a_damaged_engine_is_built_again(
    open_built: Callable[[], TensorRtSession],
    open_trt: Callable[..., TensorRtSession],
    tmp_path: Path,
) -> None:
    open_built()
    (path,) = stored(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(damaged_by("one bit", whole))
    assert open_trt().run(crops(1))["logits"].shape == (1, 7)
    assert path.read_bytes().partition(b"\n")[2] == whole.partition(b"\n")[2]


def test_an_engine_that_computes_something_else_is_refused_and_not_tried_again(
    gpu: Any, open_trt: Callable[..., TensorRtSession], tmp_path: Path
) -> None:
    gpu.set(fault="wrong")
    with pytest.raises(EngineError, match="the outputs on golden inputs are off by"):
        open_trt()
    (path,) = stored(tmp_path)
    assert path.read_bytes().count(b"\n") == 1  # the reason, and no plan
    gpu.set(fault="crash")  # a build would tell
    with pytest.raises(EngineError, match=r"no engine of model\.onnx on this board") as caught:
        open_trt()
    assert str(path) in caught.value.remedy


def test_an_engine_is_compared_with_onnx_runtime_whenever_it_is_loaded(
    open_built: Callable[[], TensorRtSession], model: StoredModel, tmp_path: Path
) -> None:
    open_built()
    answers = golden.of_model(model)
    other = golden.Golden(
        answers.input, {name: array[:, ::-1] for name, array in answers.outputs.items()}
    )
    with pytest.raises(EngineError, match="does not compute what ONNX Runtime does"):
        open_model(model, TRT, tmp_path / "store", other)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("no-build", "cannot build an engine of model.onnx: out of memory"),
        ("crash", "ended by SIGSEGV"),
        ("no-deserialize", "it does not take the engine (magic tag does not match)"),
        ("no-context", "there is not enough memory for it (out of memory)"),
        ("no-execute", "it failed while running (an illegal memory access was encountered)"),
    ],
)
def test_what_goes_wrong_in_a_build_is_told_and_leaves_nothing(
    gpu: Any, open_trt: Callable[..., TensorRtSession], tmp_path: Path, fault: str, words: str
) -> None:
    gpu.set(fault=fault)
    with pytest.raises(EngineError) as caught:
        open_trt()
    assert words in str(caught.value)
    assert caught.value.remedy
    assert {path.suffix for path in engine_folder(tmp_path).iterdir()} == {".lock"}
    if fault == "crash":
        gpu.set(fault="")
        assert open_trt().run(crops(1))["logits"].shape == (1, 7)


def test_a_network_that_tensorrt_cannot_read_is_named(
    gpu: Any, model: StoredModel, tmp_path: Path
) -> None:
    path = tmp_path / "odd.onnx"
    path.write_bytes(b"odd" * 100)
    profile = engines.rows_profile((1, 48, 48))
    network = engines.Network(path, "fp32", profile, golden.of_model(model))
    with pytest.raises(engines.EngineError, match=r"cannot read odd\.onnx: failed to parse"):
        engines.open_engine(network, tmp_path)


def test_progress_is_told(gpu: Any, model: StoredModel, tmp_path: Path) -> None:
    told: list[float] = []
    network = engines.Network(
        model.verified_file(),
        "fp32",
        engines.rows_profile((1, 48, 48)),
        golden.of_model(model),
    )
    engines.open_engine(network, tmp_path, told.append)
    assert told == [0.25, 0.5, 0.75, 1.0]


def test_only_the_newest_engines_are_kept(tmp_path: Path) -> None:
    for number in range(9):
        key = some_key(f"{number:064x}"[::-1])
        path = engine_file.path_of(tmp_path, key)
        header = engine_file.Header(key=key, built="now", build_s=1.0)
        engine_file.write(path, header, b"plan")
        os.utime(path, (number, number))
    assert len(list(path.parent.glob("*.engine"))) == 6
    kept = engine_file.read(path, key)
    assert kept is not None
    assert kept[1] == b"plan"


OPEN = f"""\
import sys
from pathlib import Path
from fer_agent.inference import golden
from fer_agent.inference.setting import Setting
from fer_agent.inference.opening import open_model
from fer_agent.models.store import find_model
model = find_model({NAME!r})
session = open_model(
    model, Setting(runtime="tensorrt"), Path(sys.argv[1]), golden.of_model(model)
)
print(session.run(golden.of_model(model).input)["logits"].shape)
"""


def builds(pid: int) -> list[int]:
    """Return the processes that build an engine for a process."""
    children: list[str] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            children += task.read_text().split()
    return [int(child) for child in children if "engine_build" in command(child)]


def command(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_a_build_ends_with_whoever_waits_for_it_and_leaves_nothing(
    gpu: Any, tmp_path: Path, wait_for: Callable[..., None]
) -> None:
    gpu.set(fault="hang")
    process = subprocess.Popen([sys.executable, "-c", OPEN, str(tmp_path / "store")])
    wait_for(lambda: builds(process.pid))
    (build,) = builds(process.pid)
    process.kill()
    process.wait(PATIENCE_S)
    wait_for(lambda: not is_alive(build))
    assert stored(tmp_path) == []
    gpu.set(fault="")
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(tmp_path / "store")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "(24, 7)"


def test_the_gpu_is_given_back_at_exit_in_the_thread_that_used_it(gpu: Any, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", OPEN, str(tmp_path)], check=True, capture_output=True)
    gpu.check()  # nothing told by the processes


def test_two_who_want_the_same_engine_build_it_once(gpu: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPEN, str(tmp_path / "store")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [one.communicate(timeout=PATIENCE_S)[0].strip() for one in both] == ["(24, 7)"] * 2
    assert len(stored(tmp_path)) == 1


def test_a_classifier_on_tensorrt_serves_several_threads(
    open_built: Callable[[], TensorRtSession], model: StoredModel
) -> None:
    classifier = CropClassifier(open_built(), model.manifest)
    plain = CropClassifier(OnnxSession(model.verified_file()), model.manifest)
    expected = plain.probs(crops(8))
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(10):
            probs = classifier.probs(crops(8)[: number + 1])
            if np.abs(probs - expected[: number + 1]).max() > 1e-3:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_bound_arrays_are_read_and_written(open_built: Callable[[], TensorRtSession]) -> None:
    session = open_built()
    tensor, logits = np.zeros((3, 1, 48, 48), np.uint8), np.zeros((3, 7), np.float32)
    run = session.bind(tensor, {"logits": logits})
    tensor[:] = crops(3)
    run()
    assert np.array_equal(logits, session.run(crops(3))["logits"])
    with pytest.raises(InferenceError, match=r"puts out \['logits'\], not \['scores'\]"):
        session.bind(tensor, {"scores": logits})
    with pytest.raises(InferenceError, match="at most 8 rows"):
        session.bind(crops(9), {"logits": np.zeros((9, 7), np.float32)})
    with pytest.raises(InferenceError, match=r"is \(3, 7\), not \(3, 8\)"):
        session.bind(tensor, {"logits": np.zeros((3, 8), np.float32)})()


@pytest.mark.parametrize(
    "tensor",
    [crops(1).astype(np.float32), crops(1)[..., :32], crops(1)[0], crops(0)],
    ids=["dtype", "width", "rank", "no rows"],
)
def test_an_input_that_does_not_fit_is_refused(
    open_built: Callable[[], TensorRtSession], tensor: np.ndarray
) -> None:
    with pytest.raises(InferenceError, match=r"it takes uint8 from \(1, 1, 48, 48\) to \(8, 1"):
        open_built().run(tensor)


def test_a_run_that_fails_says_why(
    gpu: Any, open_built: Callable[[], TensorRtSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_built()
    monkeypatch.setenv("FAKE_TENSORRT_FAULT", "no-execute")
    with pytest.raises(InferenceError, match="an illegal memory access was encountered"):
        session.run(crops(1))


def test_onnx_runtime_serves_while_the_engine_is_built(
    gpu: Any,
    model: StoredModel,
    tmp_path: Path,
    wait_for: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    told: list[str] = []
    session = Opener(tmp_path / "store", on_runtime=told.append).model(model, TRT)
    assert isinstance(session, StandbySession)
    plain = OnnxSession(model.verified_file())
    assert np.array_equal(session.run(crops(2))["logits"], plain.run(crops(2))["logits"])
    wait_for(lambda: told == ["tensorrt"])
    assert np.allclose(session.run(crops(2))["logits"], plain.run(crops(2))["logits"], atol=1e-4)
    assert f"the engine of {NAME} is built to 50 %" in caplog.text
    monkeypatch.setenv("FAKE_TENSORRT_FAULT", "no-execute")
    session.run(crops(2))
    assert "going back to the plain runtime" in caplog.text


def test_onnx_runtime_goes_on_when_the_build_dies(
    gpu: Any,
    model: StoredModel,
    tmp_path: Path,
    wait_for: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    gpu.set(fault="hang")
    session = Opener(tmp_path / "store").model(model, TRT)
    assert session.run(crops(1))["logits"].shape == (1, 7)
    wait_for(lambda: builds(os.getpid()))
    for build in builds(os.getpid()):
        os.kill(build, signal.SIGKILL)
    wait_for(lambda: f"ONNX Runtime goes on with {NAME}" in caplog.text)
    assert session.run(crops(1))["logits"].shape == (1, 7)
    assert stored(tmp_path) == []


def test_arrays_bound_on_one_runtime_go_on_with_the_other_and_back(
    gpu: Any,
    open_built: Callable[[], TensorRtSession],
    model: StoredModel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    session = StandbySession(OnnxSession(model.verified_file()))
    tensor, logits = crops(2), np.zeros((2, 7), np.float32)
    run = session.bind(tensor, {"logits": logits})
    run()
    expected = logits.copy()
    session.upgrade(open_built())
    logits[:] = 0
    run()
    assert np.allclose(logits, expected, atol=1e-4)
    monkeypatch.setenv("FAKE_TENSORRT_FAULT", "no-execute")
    logits[:] = 0
    run()
    assert np.array_equal(logits, expected)
    session.run(tensor)
    assert caplog.text.count("going back to the plain runtime") == 1


def test_yunet_finds_the_same_faces_on_tensorrt(gpu: Any, shared: Path, tmp_path: Path) -> None:
    path = shared / "models" / "yunet_s_dynamic.onnx"
    opener = Opener(tmp_path / "store", wait=True)
    open_detector = opener.detector
    config = DetectorConfig()
    source = CrowdSource(4)
    source.open()
    frame = source.read()
    found = [
        YuNetDetector(
            open_detector(path, runtime=runtime, threads=1, long_side=config.long_side), config
        ).detect(frame)
        for runtime in ("onnx", "tensorrt")
    ]
    assert len(found[0]) == 4
    assert np.allclose(found[0].xyxy, found[1].xyxy, atol=0.5)
    assert np.allclose(found[0].score, found[1].score, atol=1e-3)


def test_the_agent_runs_its_model_on_the_runtime_of_its_configuration(
    gpu: Any, model: StoredModel, tmp_path: Path
) -> None:
    config = ClassifierConfig(runtime="tensorrt", precision="fp16")
    ready = load_classifier(config, Opener(tmp_path, wait=True), model)
    # TensorRT 10.3 makes FP16 of the FP32 file.
    assert ready.info.sha256 == model.manifest.file("fp32").sha256
    del ready
    gpu.set(version="11.4.0")
    ready = load_classifier(config, Opener(tmp_path, wait=True), model)
    assert ready.info.sha256 == model.manifest.file("fp16").sha256


def test_a_runtime_of_the_configuration_that_is_not_here_is_a_wrong_configuration(
    model: StoredModel, tmp_path: Path
) -> None:
    available.is_here.cache_clear()
    if "tensorrt" in available.available():
        pytest.skip("this machine has TensorRT")
    with pytest.raises(ConfigError, match=r"classifier.runtime: .* only: onnx") as caught:
        load_classifier(ClassifierConfig(runtime="tensorrt"), Opener(tmp_path), model)
    assert "auto" in caught.value.remedy
    with pytest.raises(ConfigError, match=r"detector.runtime: "):
        Opener(tmp_path).detector(tmp_path, runtime="tensorrt", threads=1, long_side=320)


def test_a_machine_without_a_gpu_says_so(gpu: Any) -> None:
    gpu.set(gpu="")
    with pytest.raises(UnavailableError, match="CUDA finds no GPU") as caught:
        cuda_thread()
    assert "driver" in caught.value.remedy


def test_a_thread_that_was_closed_takes_no_more_jobs(gpu: Any) -> None:
    thread = CudaThread()
    assert thread.gpu.name == "Orin"
    assert thread.gpu.cuda == "12.6"
    thread.close()
    thread.close()
    with pytest.raises(InferenceError, match="given back"):
        thread.call(lambda: None)


def test_sessions_let_go_of_the_gpu_when_nobody_holds_them(
    gpu: Any, open_built: Callable[[], TensorRtSession]
) -> None:
    session = open_built()
    assert any(each.startswith("DeviceAllocation") for each in gpu.driver.live)
    del session
    cuda_thread().call(lambda: None)  # after what was posted before
    assert {each.split()[0] for each in gpu.driver.live} == {"Stream"}


def test_bench_and_models_build_take_tensorrt_in(gpu: Any, tmp_path: Path) -> None:
    env = {**os.environ, "FER_AGENT__MODELS__PATH": str(tmp_path / "store")}
    fer_agent = [sys.executable, "-m", "fer_agent.cli"]

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [*fer_agent, *arguments],
            env=env,
            capture_output=True,
            text=True,
            check=False,
            # On one core there are fewer numbers of threads to try.
            preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    table = run("bench", "--runs", "5", "--model", NAME, "--no-pipeline", "--runtime", "tensorrt")
    assert table.count("tensorrt") >= 2  # FP32 and FP16; the INT8 file is ONNX Runtime's
    assert "int8" not in table
    built = run("models", "build", "--runs", "10", "--json")
    assert '"runtime":"tensorrt"' in built.replace(" ", "")
    assert "does not agree" not in built
