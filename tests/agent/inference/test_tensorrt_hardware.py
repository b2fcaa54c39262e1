"""TensorRT on a real GPU: `make test-hardware` on a Jetson, or beside an NVIDIA card."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest

from fer_agent.bench.crowd import CrowdSource
from fer_agent.config.model import DetectorConfig
from fer_agent.detector.yunet import YuNetDetector
from fer_agent.inference import available, golden
from fer_agent.inference.cuda import cuda_thread
from fer_agent.inference.onnx import OnnxSession
from fer_agent.inference.opening import Opener, open_model
from fer_agent.inference.setting import Setting
from fer_agent.inference.tensorrt import TensorRtSession
from fer_agent.models.store import find_model

if TYPE_CHECKING:
    from pathlib import Path

    from fer_agent.models.store import StoredModel

pytestmark = [pytest.mark.hardware, pytest.mark.timeout(3600)]


@pytest.fixture(autouse=True)
def has_a_gpu() -> None:
    if "tensorrt" not in available.available():
        pytest.skip("TensorRT or PyCUDA does not import here")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store for all tests, because an engine takes minutes."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def model() -> StoredModel:
    return find_model("microexpnet-fer2013")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_engine_computes_what_onnx_runtime_does(
    model: StoredModel, store: Path, precision: Literal["fp32", "fp16"]
) -> None:
    setting = Setting(runtime="tensorrt", precision=precision)
    session = open_model(model, setting, store, golden.of_model(model))
    assert isinstance(session, TensorRtSession)
    plain = OnnxSession(model.verified_file("fp32"))
    faces = golden.of_model(model).input
    for count in (1, 3, 8, 19):
        logits = session.run(faces[:count])["logits"]
        expected = plain.run(faces[:count])["logits"]
        limit = golden.TOLERANCES[precision].relative_difference * np.abs(expected).max()
        assert np.abs(logits - expected).max() <= limit


def test_a_stored_engine_is_loaded_from_several_threads(model: StoredModel, store: Path) -> None:
    session = open_model(model, Setting(runtime="tensorrt"), store, golden.of_model(model))
    faces = golden.of_model(model).input[:4]
    expected = session.run(faces)["logits"]
    wrong: list[int] = []

    def work(number: int) -> None:
        apart = max(np.abs(session.run(faces)["logits"] - expected).max() for _ in range(200))
        if apart > 1e-4:
            wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_yunet_finds_the_same_faces(shared: Path, store: Path) -> None:
    path = shared / "models" / "yunet_s_dynamic.onnx"
    config, opener, source = DetectorConfig(), Opener(store, wait=True), CrowdSource(4)
    source.open()
    frame = source.read()
    runtimes: tuple[Literal["onnx"], Literal["tensorrt"]] = ("onnx", "tensorrt")
    found = [
        YuNetDetector(
            opener.detector(path, runtime=runtime, threads=1, long_side=config.long_side), config
        ).detect(frame)
        for runtime in runtimes
    ]
    assert len(found[0]) == len(found[1]) == 4
    assert np.allclose(found[0].xyxy, found[1].xyxy, atol=1.0)


def test_memory_of_the_gpu_is_given_back(model: StoredModel, store: Path) -> None:
    import pycuda.driver as cuda

    def open_once() -> None:
        session = open_model(model, Setting(runtime="tensorrt"), store, golden.of_model(model))
        session.run(golden.of_model(model).input[:1])

    def free_bytes() -> int:
        return int(cuda_thread().call(cuda.mem_get_info)[0])

    open_once()
    before = free_bytes()
    for _ in range(10):
        open_once()
    assert before - free_bytes() < 32 << 20
