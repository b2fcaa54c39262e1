"""The setting in which a network runs: its file, the runtime, the number of threads."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import Self

from fer_agent.system.records import FrozenRecord

Precision = Literal["fp32", "fp16", "int8"]
RuntimeName = Literal["onnx", "tensorrt"]


class Setting(FrozenRecord):
    """A file of a model, what runs it, and on how many threads."""

    runtime: RuntimeName = "onnx"
    precision: Precision = "fp32"
    threads: Annotated[int, Field(ge=1, le=64)] = 1
    """Threads inside one inference; 1 where the runtime has no use for them."""

    def __str__(self) -> str:
        """Return it in a few words."""
        if self.runtime == "tensorrt":
            return f"{self.precision} on TensorRT"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.precision} on ONNX Runtime, {threads}"


PLAIN = Setting()
"""The setting where nothing was measured: right on every board, if not the fastest."""


class Conditions(FrozenRecord):
    """Values on which a stored result depends; the fields' titles name them in log lines."""

    def differences(self, other: Self) -> list[str]:
        """Return the titles of the fields in which `other` differs, with short values."""
        words = []
        for key, field in type(self).model_fields.items():
            here, there = getattr(self, key), getattr(other, key)
            if here != there:
                shown = isinstance(here, str) and key != "model_sha256"
                words.append(f"{field.title} ({there}, here {here})" if shown else str(field.title))
        return words
