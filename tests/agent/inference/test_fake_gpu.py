"""The stand-ins of TensorRT and PyCUDA notice what the real ones punish."""

from __future__ import annotations

import importlib
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fer_agent.models.store import find_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def cuda(gpu: Any, tmp_path: Path) -> Iterator[Any]:
    """The driver, with a context on this thread's stack; violations are for the test to see."""
    driver = gpu.driver
    driver.init()
    context = driver.Device(0).retain_primary_context()
    context.push()
    yield driver
    if driver.local.stack.contexts:
        context.pop()
    driver.violations.clear()
    (tmp_path / "violations").unlink(missing_ok=True)


def in_a_thread(job: Callable[[], object]) -> list[str]:
    raised: list[str] = []

    def work() -> None:
        try:
            job()
        except Exception as error:  # noqa: BLE001 - for the test to see
            raised.append(str(error))  # the error itself would hold on to what failed

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return raised


def test_nothing_goes_without_init_and_a_context(gpu: Any) -> None:
    with pytest.raises(gpu.driver.LogicError, match="initialization"):
        gpu.driver.Device(0)
    gpu.driver.init()
    with pytest.raises(gpu.driver.LogicError, match="no currently active context"):
        gpu.driver.mem_alloc(8)


def test_copies_want_page_locked_memory_and_happen_at_the_end(cuda: Any) -> None:
    stream, memory = cuda.Stream(), cuda.mem_alloc(4)
    with pytest.raises(cuda.LogicError, match="page-locked"):
        cuda.memcpy_htod_async(memory, np.zeros(4, np.uint8), stream)
    host = cuda.pagelocked_empty(4, np.uint8)
    host[:] = 7
    cuda.memcpy_htod_async(memory, host, stream)
    assert bytes(memory.content) == b"\0\0\0\0"
    stream.synchronize()
    assert bytes(memory.content) == b"\7\7\7\7"
    with pytest.raises(cuda.LogicError, match="invalid argument"):
        cuda.memcpy_htod_async(memory, cuda.pagelocked_empty(5, np.uint8), stream)


def test_another_thread_may_neither_use_nor_free(cuda: Any) -> None:
    kept = [cuda.mem_alloc(4)]
    stream = cuda.Stream()
    (error,) = in_a_thread(stream.synchronize)
    assert "no currently active context" in error
    assert cuda.violations == []
    in_a_thread(kept.clear)
    assert cuda.violations == ["DeviceAllocation 1 was freed outside of its context's thread"]
    (error,) = in_a_thread(cuda.current().push)
    assert "out-of-thread" in error


def test_a_context_left_behind_is_noticed(cuda: Any) -> None:
    in_a_thread(lambda: cuda.Device(0).retain_primary_context().push())
    assert cuda.violations == ["the context stack was not empty when its thread ended"]


class Trt:
    """TensorRT of a version, with what it said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        trt = self.module = importlib.import_module("tensorrt")

        class Logger(trt.ILogger):  # type: ignore[misc]  # no types
            def __init__(inner) -> None:  # noqa: N805  two selves
                trt.ILogger.__init__(inner)

            def log(inner, severity: object, message: str) -> None:  # noqa: N805
                self.said.append(message)

        self.logger = Logger()
        self.builder = trt.Builder(self.logger)

    def plan(self, flags: int, half: bool = False, profile: bool = True) -> bytes | None:
        trt = self.module
        network = self.builder.create_network(flags)
        parser = trt.OnnxParser(network, self.logger)
        path = find_model("microexpnet-fer2013").verified_file()
        if not parser.parse(path.read_bytes()):
            self.said.append(parser.get_error(0).desc())
            return None
        config = self.builder.create_builder_config()
        if half:
            config.set_flag(trt.BuilderFlag.FP16)
        if profile:
            shapes = self.builder.create_optimization_profile()
            shapes.set_shape("crops", (1, 1, 48, 48), (1, 1, 48, 48), (8, 1, 48, 48))
            config.add_optimization_profile(shapes)
        made: bytes | None = self.builder.build_serialized_network(network, config)
        return made


def test_a_network_of_8_6_wants_a_batch_axis(gpu: Any) -> None:
    gpu.set(version="8.6.1")
    trt = Trt()
    assert trt.plan(0) is None
    assert trt.said == ["the network must have an explicit batch axis"]
    assert trt.plan(1) is not None


def test_strong_types_and_the_flag_exclude_each_other(gpu: Any) -> None:
    trt = Trt()
    assert trt.plan(2, half=True) is None
    assert "precision flags are not allowed" in trt.said[-1]
    gpu.set(version="11.4.0")
    trt = Trt()
    assert not hasattr(trt.module.BuilderFlag, "FP16")
    assert not hasattr(trt.module.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH")


def test_open_axes_want_a_profile(gpu: Any) -> None:
    trt = Trt()
    assert trt.plan(0, profile=False) is None
    assert "no optimization profile" in trt.said[-1]


def test_a_run_wants_every_address_and_a_shape_within_the_profile(cuda: Any) -> None:
    trt = Trt()
    runtime = trt.module.Runtime(trt.logger)
    assert runtime.deserialize_cuda_engine(b"something else") is None
    context = runtime.deserialize_cuda_engine(trt.plan(0)).create_execution_context()
    stream = cuda.Stream()
    assert not context.execute_async_v3(stream.handle)
    assert trt.said[-1].startswith("no address is set for")
    assert not context.set_input_shape("crops", (9, 1, 48, 48))
    assert "outside of the profile" in trt.said[-1]
    in_a_thread(lambda: context.set_input_shape("crops", (1, 1, 48, 48)))
    assert cuda.violations == ["IExecutionContext was used in another thread"]


def test_a_logger_has_to_be_initialised(gpu: Any) -> None:
    trt = importlib.import_module("tensorrt")

    class Hasty(trt.ILogger):  # type: ignore[misc]  # no types
        def __init__(self) -> None:
            pass

    with pytest.raises(TypeError, match="__init__"):
        trt.Builder(Hasty())
