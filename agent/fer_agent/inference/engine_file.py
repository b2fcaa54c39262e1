"""Engines on disk: what one was built of and for, and its bytes, in one file that is whole or not.

A file is one line of JSON, the `Header`, and then the plan as TensorRT serialized it.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from fer_agent.system import durable

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

_KEPT = 6
"""Engines in a store, the newest: of two versions of a model and of the detector, with room."""

_SUFFIX = ".engine"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Profile(_Part):
    """Input shapes an engine is built for: smallest, most frequent, largest."""

    least: tuple[int, ...]
    usual: tuple[int, ...]
    most: tuple[int, ...]


class EngineKey(_Part):
    """Everything an engine depends on; another value of any means another engine."""

    model_sha256: str
    """Of the ONNX file."""
    precision: Literal["fp32", "fp16"]
    profile: Profile
    flags: tuple[str, ...]
    """Switches of the builder."""
    tensorrt: str
    cuda: str
    gpu: str
    compute_capability: str

    def differences(self, other: EngineKey) -> list[str]:
        """Say what is another in `other`, in words for a log line."""
        words = {
            "model_sha256": "the model",
            "precision": "the precision",
            "profile": "the input's size",
            "flags": "the builder's flags",
            "tensorrt": "TensorRT",
            "cuda": "CUDA",
            "gpu": "the GPU",
            "compute_capability": "the compute capability",
        }
        found = []
        for key, word in words.items():
            here, there = getattr(self, key), getattr(other, key)
            if here != there:
                plain = isinstance(here, str) and key != "model_sha256"
                found.append(f"{word} ({there}, here {here})" if plain else word)
        return found


class Header(_Part):
    """The first line of a file."""

    schema_version: Literal[1] = 1
    key: EngineKey
    built: str
    """Date and time in UTC, RFC 3339."""
    build_s: float
    largest_difference: float | None = None
    """Of any output on golden inputs, against ONNX Runtime's."""
    refused: str = ""
    """Why no such engine is used on this board; then there is no plan."""
    plan_sha256: str = ""
    plan_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Stored:
    """A file's content."""

    header: Header
    plan: bytes


def path_of(store: Path, key: EngineKey) -> Path:
    """Return where the engine of a model file, precision and profile is kept."""
    shape = hashlib.sha256(key.profile.model_dump_json().encode()).hexdigest()[:6]
    name = f"{key.model_sha256[:12]}-{key.precision}-{shape}{_SUFFIX}"
    return store / ".state" / "engines" / name


def read(path: Path, key: EngineKey) -> Stored | None:
    """Return a stored engine if it is whole and was built for exactly this; else None and a word.

    Nothing of a file is handed on before its hash is right: TensorRT trusts what it is given.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.warning("cannot read %s: %s; the engine is built anew", path, error.strerror)
        return None
    line, _, plan = content.partition(b"\n")
    try:
        header = Header.model_validate_json(line)
    except ValidationError:
        logger.warning("%s is no engine of ours; it is built anew", path)
        return None
    if changed := key.differences(header.key):
        logger.warning(
            "%s was built for something else: %s; it is built anew", path, ", ".join(changed)
        )
        return None
    if len(plan) != header.plan_bytes or hashlib.sha256(plan).hexdigest() != header.plan_sha256:
        logger.warning("%s is damaged; it is built anew", path)
        return None
    return Stored(header=header, plan=plan)


def write(path: Path, header: Header, plan: bytes) -> None:
    """Keep an engine, or why there is none; the oldest ones beyond a few go.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    told = header.model_copy(
        update={"plan_sha256": hashlib.sha256(plan).hexdigest(), "plan_bytes": len(plan)}
    )
    durable.write(path, told.model_dump_json().encode() + b"\n" + plan)
    engines = sorted(
        path.parent.glob(f"*{_SUFFIX}"), key=lambda each: each.stat().st_mtime_ns, reverse=True
    )
    for old in engines[_KEPT:]:
        if old != path:
            old.unlink(missing_ok=True)
