"""The bases of frozen records, which are stored as JSON or passed between processes."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from typing_extensions import Self

from fer_agent.system import durable


class FrozenRecord(BaseModel):
    """A record that does not change; unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class StateRecord(FrozenRecord, extra="ignore"):
    """A JSON file in `.state/`; unknown fields come from a newer agent and are ignored."""

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read a file; None without one that this agent can read."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, path: Path) -> None:
        """Put the record on the disk.

        Raises:
            OSError: it cannot be written; the old file stays.
        """
        durable.write(path, self.model_dump_json(indent=1).encode() + b"\n")
