"""The runtimes of this machine, and sessions on them by the runtime's name.

A new runtime is one more entry of `RUNTIMES`.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from fer_agent.errors import UnavailableError, UsageError
from fer_agent.inference.request import LoadRequest
from fer_agent.vision.ports import InferenceSession

_IMPORT_TIMEOUT_S = 120.0
"""The first import of CUDA's libraries from a slow card takes long."""


class TypedSession(InferenceSession, Protocol):
    """An `InferenceSession` with the element type of its input."""

    @property
    def input_dtype(self) -> np.dtype[np.generic]:
        """The input's element type."""
        ...


@dataclass(frozen=True, slots=True)
class Runtime:
    """One way to run a network.

    Attributes:
        name: as on the command line and in results.
        title: as its makers write it.
        packages: those that must be importable, the one with the version first.
        native: whether the packages need libraries from outside their wheels; then they are
            imported once, in a child process.
        threaded: whether it has a number of threads.
        remedy: a sentence on how to get it.
        open: makes a session.
    """

    name: str
    title: str
    packages: tuple[str, ...]
    native: bool
    threaded: bool
    remedy: str
    open: Callable[[LoadRequest], TypedSession]


def _open_onnx(request: LoadRequest) -> TypedSession:
    from fer_agent.inference.onnx import OnnxSession  # noqa: PLC0415  loaded only where it is used

    return OnnxSession(request.path, threads=request.threads)


def _open_tensorrt(request: LoadRequest) -> TypedSession:
    from fer_agent.inference import engines  # noqa: PLC0415  likewise

    return engines.open_engine(engines.any_network(request), request.store)


RUNTIMES: Final[tuple[Runtime, ...]] = (
    Runtime(
        name="onnx",
        title="ONNX Runtime",
        packages=("onnxruntime",),
        native=False,
        threaded=True,
        remedy="reinstall fer-agent with its dependencies",
        open=_open_onnx,
    ),
    Runtime(
        name="tensorrt",
        title="TensorRT",
        packages=("tensorrt", "pycuda.driver"),
        native=True,
        threaded=False,
        remedy="install `fer-agent[jetson]` on a Jetson with JetPack 6 or newer, or "
        "`fer-agent[tensorrt]` beside an NVIDIA GPU",
        open=_open_tensorrt,
    ),
)
"""All runtimes that the agent knows; the first one is always there."""


def available() -> tuple[str, ...]:
    """Return the names of the runtimes that are on this machine."""
    return tuple(runtime.name for runtime in RUNTIMES if is_here(runtime.name))


@functools.cache
def is_here(name: str) -> bool:
    """Return whether a runtime's packages import, checked once in a process.

    Native ones are imported in a child process, so that their libraries are not loaded here.
    """
    (runtime,) = (one for one in RUNTIMES if one.name == name)
    tops = [package.partition(".")[0] for package in runtime.packages]
    if any(importlib.util.find_spec(top) is None for top in tops):
        return False
    if not runtime.native:
        return True
    try:
        done = subprocess.run(  # noqa: S603  our own interpreter
            [sys.executable, "-c", f"import {', '.join(runtime.packages)}"],
            capture_output=True,
            check=False,
            timeout=_IMPORT_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def find(name: str) -> Runtime:
    """Return a runtime that is there.

    Raises:
        UsageError: there is no runtime of that name.
        UnavailableError: it is not on this machine; the message lists those that are.
    """
    known = {runtime.name: runtime for runtime in RUNTIMES}
    if name not in known:
        raise UsageError(
            f"there is no runtime called {name!r}", remedy=f"use one of: {', '.join(known)}"
        )
    if not is_here(name):
        raise UnavailableError(
            f"the runtime {name!r} is not on this machine, only: {', '.join(available())}",
            remedy=known[name].remedy,
        )
    return known[name]


def open_session(name: str, request: LoadRequest) -> TypedSession:
    """Load an ONNX file on a runtime.

    Args:
        name: the runtime's name.
        request: the network.

    Raises:
        UsageError, UnavailableError: as in `find`.
        ModelError: the file is missing, damaged, or has not exactly one input.
        InferenceError: the runtime does not run as asked.
    """
    return find(name).open(request)


def version(name: str) -> str:
    """Return the version of a runtime that is there; empty where its package has none."""
    package = find(name).packages[0].partition(".")[0]
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        pass
    # A package of another name, as onnxruntime-gpu; going through all that is installed is slow.
    distributions = importlib.metadata.packages_distributions().get(package)
    return importlib.metadata.version(distributions[0]) if distributions else ""
