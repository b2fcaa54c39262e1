"""The conditions of a measurement: board, runtimes, model and agent."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
from pathlib import Path
from typing import Annotated

from pydantic import Field

from fer_agent import __version__
from fer_agent.inference.setting import Conditions
from fer_agent.models.manifest import Manifest
from fer_agent.system import board

_PACKAGES = ("onnxruntime", "tensorrt", "pycuda")

_CPU_KEYS = ("model name", "Model", "CPU part", "Hardware")
"""Lines of /proc/cpuinfo that name the processor, on x86-64 and on arm64."""


class Fingerprint(Conditions):
    """Everything that a speed depends on and that does not change while the board is up."""

    board: Annotated[str, Field(title="the board")]
    cpu: Annotated[str, Field(title="the processor")]
    cores: Annotated[int, Field(title="the number of cores")]
    """Cores that this process may use."""
    runtimes: Annotated[dict[str, str], Field(title="a runtime")]
    """Versions of the runtimes' packages that are installed."""
    model_sha256: Annotated[str, Field(title="the model")]
    """Hash over the hashes of all of the model's files."""
    agent_version: Annotated[str, Field(title="the agent")]


def of_this_board(manifest: Manifest) -> Fingerprint:
    """Take the fingerprint of this board and a model; loads no runtime."""
    return Fingerprint(
        board=board.model_name(),
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        runtimes=installed_runtimes(),
        model_sha256=model_sha256(manifest),
        agent_version=__version__,
    )


def model_sha256(manifest: Manifest) -> str:
    """Return one hash for all of a model's files, whatever their order."""
    hashes = sorted(f"{file.precision}:{file.sha256}" for file in manifest.files)
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()


def _cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {key.strip(): value.strip() for key, value in values.items()}
    words = [named[key] for key in _CPU_KEYS if named.get(key)]
    return ", ".join([platform.machine(), *words])


def installed_runtimes() -> dict[str, str]:
    """Return the versions of the runtimes' packages that are installed."""
    found = {}
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is not None:
            try:
                found[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                found[package] = "of unknown version"
    return found
