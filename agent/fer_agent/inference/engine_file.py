"""TensorRT engines on disk.

A file is one line of JSON, the `Header`, and then the plan as TensorRT serialized it.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from fer_agent.inference.setting import Conditions
from fer_agent.system import durable
from fer_agent.system.records import FrozenRecord

logger = logging.getLogger(__name__)

_KEPT = 6
"""Engines kept in a store, the newest: enough for two versions of a model and the detector."""

_SUFFIX = ".engine"


class Profile(FrozenRecord):
    """Input shapes an engine is built for: smallest, most frequent, largest."""

    least: tuple[int, ...]
    usual: tuple[int, ...]
    most: tuple[int, ...]


class EngineKey(Conditions):
    """Everything an engine depends on; another value of any means another engine."""

    model_sha256: Annotated[str, Field(title="the model")]
    """Of the ONNX file."""
    precision: Annotated[Literal["fp32", "fp16"], Field(title="the precision")]
    profile: Annotated[Profile, Field(title="the input's size")]
    flags: Annotated[tuple[str, ...], Field(title="the builder's flags")]
    tensorrt: Annotated[str, Field(title="TensorRT")]
    cuda: Annotated[str, Field(title="CUDA")]
    gpu: Annotated[str, Field(title="the GPU")]
    compute_capability: Annotated[str, Field(title="the compute capability")]


class Header(FrozenRecord):
    """The first line of a file."""

    schema_version: Literal[1] = 1
    key: EngineKey
    built: str
    """Date and time in UTC, RFC 3339."""
    build_s: float
    largest_difference: float | None = None
    """Of any output on golden inputs, against ONNX Runtime's."""
    refused: str = ""
    """Why this board uses no such engine; then there is no plan."""
    plan_sha256: str = ""
    plan_bytes: int = 0


def path_of(store: Path, key: EngineKey) -> Path:
    """Return the path of the engine of a model file, precision and profile."""
    shape = hashlib.sha256(key.profile.model_dump_json().encode()).hexdigest()[:6]
    name = f"{key.model_sha256[:12]}-{key.precision}-{shape}{_SUFFIX}"
    return store / ".state" / "engines" / name


def read(path: Path, key: EngineKey) -> tuple[Header, bytes] | None:
    """Return a file's header and its plan; None, with the reason in the log, for an unusable one.

    It has to be whole and built for exactly this key. A plan with a wrong hash is never returned:
    TensorRT does not check what it loads.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.warning("cannot read %s: %s; the engine is built again", path, error.strerror)
        return None
    line, _, plan = content.partition(b"\n")
    try:
        header = Header.model_validate_json(line)
    except ValidationError:
        logger.warning("%s is no engine of ours; it is built again", path)
        return None
    if changed := key.differences(header.key):
        logger.warning(
            "%s was built for something else: %s; it is built again", path, ", ".join(changed)
        )
        return None
    if len(plan) != header.plan_bytes or hashlib.sha256(plan).hexdigest() != header.plan_sha256:
        logger.warning("%s is damaged; it is built again", path)
        return None
    return header, plan


def write(path: Path, header: Header, plan: bytes) -> None:
    """Write an engine, or the reason why there is none; remove the oldest ones beyond a few.

    Raises:
        OSError: it cannot be written; the old file stays.
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
