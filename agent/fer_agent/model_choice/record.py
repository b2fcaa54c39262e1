"""The choice of a board, on disk: what was measured, what was chosen, what it holds for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from fer_agent import durable
from fer_agent.model_choice.fingerprint import Fingerprint
from fer_agent.model_choice.setting import Setting

if TYPE_CHECKING:
    from pathlib import Path


class Measurement(BaseModel):
    """One setting, tried."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    setting: Setting
    latency_ms: float | None = None
    """Median duration of one face in the calmest part of the trial; None when it failed."""
    largest_difference: float | None = None
    """Of any output on golden inputs, against the FP32 file's."""
    label_disagreements: int | None = None
    """Golden inputs that get another label."""
    accuracy_lost: float | None = None
    """Share of the validation split that FP32 gets right beyond this; None when not measured."""
    problem: str = ""
    """Why it is out of the question; empty when it is not."""


class Choice(BaseModel):
    """`<store>/.state/choices/<model>.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    schema_version: Literal[1] = 1
    model: str
    version: str
    created: str
    """Date and time in UTC, RFC 3339."""
    fingerprint: Fingerprint
    setting: Setting
    measured: tuple[Measurement, ...]


def path_of(store: Path, model: str) -> Path:
    """Return where the choice for a model is kept."""
    return store / ".state" / "choices" / f"{model}.json"


def read(store: Path, model: str) -> Choice | None:
    """Return the recorded choice; None when there is none that can be read."""
    try:
        return Choice.model_validate_json(path_of(store, model).read_bytes())
    except (OSError, ValidationError):
        return None


def write(store: Path, choice: Choice) -> Path:
    """Record a choice; after a power cut the old one or the new one is there.

    Returns:
        The file.

    Raises:
        TemporaryError: the disk is full.
        ConfigError: the store cannot be written.
    """
    path = path_of(store, choice.model)
    try:
        durable.write(path, (choice.model_dump_json(indent=2) + "\n").encode())
    except OSError as error:
        raise durable.refused(error, store) from error
    return path
