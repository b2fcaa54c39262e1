"""How a network is loaded: its file, the runtime, the number of threads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Precision = Literal["fp32", "fp16", "int8"]
RuntimeName = Literal["onnx", "tensorrt"]


class Setting(BaseModel):
    """A file of a model, what runs it, and on how many threads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime: RuntimeName = "onnx"
    precision: Precision = "fp32"
    threads: Annotated[int, Field(ge=1, le=64)] = 1
    """Threads inside one inference; 1 where the runtime has no use for them."""

    def __str__(self) -> str:
        """Say it in a few words."""
        if self.runtime == "tensorrt":
            return f"{self.precision} on TensorRT"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.precision} on ONNX Runtime, {threads}"


PLAIN = Setting()
"""What runs where nothing was measured: it is right on every board, if not the fastest."""


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What is to be loaded.

    Attributes:
        path: the ONNX file, whatever the runtime makes of it.
        threads: threads inside one run; without meaning where the runtime is not threaded.
        precision: what to compute in, where that is not the file's own business.
        shape: of one input, where the file leaves more open than the number of rows.
        store: the model store, where engines are kept.
    """

    path: Path
    threads: int = 1
    precision: Literal["fp32", "fp16"] = "fp32"
    shape: tuple[int, ...] | None = None
    store: Path = Path()
