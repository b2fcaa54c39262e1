"""The request to load a network; without pydantic, which measured processes do not load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """A network to load on some runtime.

    Attributes:
        path: the ONNX file.
        threads: threads inside one run; ignored where the runtime is not threaded.
        precision: of an engine that is built from the file.
        shape: of one input, where the file leaves more open than the number of rows.
        store: the model store, where engines are kept.
    """

    path: Path
    threads: int = 1
    precision: Literal["fp32", "fp16"] = "fp32"
    shape: tuple[int, ...] | None = None
    store: Path = Path()
