"""One way to run a model on this board."""

from __future__ import annotations

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
