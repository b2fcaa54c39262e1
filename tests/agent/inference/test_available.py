from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fer_agent.errors import UnavailableError, UsageError
from fer_agent.inference import available
from fer_agent.inference.request import LoadRequest
from fer_agent.models.store import find_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def asked_again() -> Iterator[None]:
    available.is_here.cache_clear()
    yield
    available.is_here.cache_clear()


def with_packages(monkeypatch: pytest.MonkeyPatch, *packages: str, native: bool) -> None:
    onnx = available.RUNTIMES[0]
    foreign = replace(onnx, name="tensorrt", packages=packages, native=native, remedy="buy one")
    monkeypatch.setattr(available, "RUNTIMES", (onnx, foreign))


def test_onnx_runtime_is_always_there_and_asking_does_not_load_it() -> None:
    code = (
        "import sys; from fer_agent.inference import available;"
        "print('onnx' in available.available(), 'onnxruntime' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_a_session_says_what_it_takes() -> None:
    path = find_model("microexpnet-fer2013").verified_file()
    session = available.open_session("onnx", LoadRequest(path))
    assert session.input_dtype == np.uint8
    assert session.input_shape[1:] == (1, 48, 48)
    (logits,) = session.run(np.zeros((1, 1, 48, 48), np.uint8)).values()
    assert logits.shape == (1, 7)


def test_a_runtime_without_its_package_is_not_there_and_the_others_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_packages(monkeypatch, "no_such_package", native=False)
    assert available.available() == ("onnx",)
    with pytest.raises(UnavailableError, match=r"'tensorrt' is not on this machine, only: onnx"):
        available.find("tensorrt")


def test_installed_but_without_its_libraries_is_not_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bindings_only.py").write_text("raise ImportError('libnvinfer.so')")
    # Not syspath_prepend: it goes through caches that a thread of an earlier test may be filling.
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with_packages(monkeypatch, "bindings_only", native=True)
    assert available.available() == ("onnx",)


def test_a_native_runtime_that_imports_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with_packages(monkeypatch, "json", "decimal", native=True)
    assert available.available() == ("onnx", "tensorrt")
    assert available.find("tensorrt").packages == ("json", "decimal")


def test_a_runtime_nobody_knows_is_a_slip_of_the_pen() -> None:
    with pytest.raises(UsageError, match="no runtime called 'tensorflow'") as caught:
        available.find("tensorflow")
    assert "onnx, tensorrt" in caught.value.remedy


def test_the_version_is_the_package_s() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    assert available.version("onnx") == onnxruntime.__version__
