"""A machine with TensorRT and a GPU, as the stand-ins in `tests/fakes` play it."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fer_agent.inference import available, cuda, tensorrt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FAKES = Path(__file__).resolve().parents[2] / "fakes"


def _forget() -> None:
    if cuda.cuda_thread.cache_info().currsize:
        cuda.cuda_thread().close()
    cuda.cuda_thread.cache_clear()
    tensorrt.trt_logger.cache_clear()
    available.is_here.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] in ("tensorrt", "pycuda")]:
        del sys.modules[name]


class GpuMachine:
    """A machine with a GPU; processes that are started on it have it too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, violations: Path) -> None:
        self._monkeypatch = monkeypatch
        self._violations = violations
        # Not syspath_prepend: it reads caches that a thread of an earlier test may be filling.
        monkeypatch.setattr(sys, "path", [str(FAKES), *sys.path])
        before = os.environ.get("PYTHONPATH")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(FAKES), before])))
        monkeypatch.setenv("FAKE_CUDA_VIOLATIONS", str(violations))

    def set(self, **variables: str) -> None:
        """Make it another machine: `version`, `fault` or `gpu`."""
        self.check()
        names = {
            "version": "FAKE_TENSORRT_VERSION",
            "fault": "FAKE_TENSORRT_FAULT",
            "gpu": "FAKE_CUDA_GPU",
        }
        for key, value in variables.items():
            self._monkeypatch.setenv(names[key], value)

    @property
    def driver(self) -> Any:
        return importlib.import_module("pycuda.driver")

    def check(self) -> None:
        """Fail when a rule was broken, here or in a process, or something was not freed."""
        gc.collect()
        driver = sys.modules.get("pycuda.driver")
        _forget()
        if driver is not None:
            assert driver.violations == []
            assert driver.live == set()
        assert not self._violations.exists(), self._violations.read_text()


@pytest.fixture
def new_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], Any]:
    @contextmanager
    def make() -> Iterator[GpuMachine]:
        _forget()
        machine = GpuMachine(monkeypatch, tmp_path / "violations")
        yield machine
        machine.check()

    return make


@pytest.fixture
def gpu(new_machine: Callable[[], Any]) -> Iterator[GpuMachine]:
    """A machine with a GPU and TensorRT 10.3, whose rules are checked at the end."""
    pytest.importorskip("onnx", reason="onnx comes with the trainer extra")
    with new_machine() as machine:
        yield machine
