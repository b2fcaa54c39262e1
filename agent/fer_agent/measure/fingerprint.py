"""What a measurement holds for: this board, these runtimes, this model, this agent."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from fer_agent import __version__
from fer_agent.system import board

if TYPE_CHECKING:
    from fer_agent.models.manifest import Manifest

_PACKAGES = ("onnxruntime", "tensorrt", "pycuda")

_CPU_KEYS = ("model name", "Model", "CPU part", "Hardware")
"""Lines of /proc/cpuinfo that name the processor, on x86-64 and on arm64."""


class Fingerprint(BaseModel):
    """Everything that a speed depends on and that does not change while the board is up."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    board: str
    cpu: str
    cores: int
    """Cores that this process may use."""
    runtimes: dict[str, str]
    """Versions of the runtimes' packages that are installed."""
    model_sha256: str
    """Hash over the hashes of all of the model's files."""
    agent_version: str

    def differences(self, other: Fingerprint) -> list[str]:
        """Name what is another, in words for a log line."""
        words = {
            "board": "the board",
            "cpu": "the processor",
            "cores": "the number of cores",
            "runtimes": "a runtime",
            "model_sha256": "the model",
            "agent_version": "the agent",
        }
        return [word for key, word in words.items() if getattr(self, key) != getattr(other, key)]


def of_this_board(manifest: Manifest) -> Fingerprint:
    """Take the fingerprint of this board and a model; loads no runtime."""
    return Fingerprint(
        board=board.model_name(),
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        runtimes=_runtimes(),
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


def _runtimes() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is not None:
            try:
                found[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                found[package] = "of unknown version"
    return found
