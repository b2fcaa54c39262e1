"""Start of Lightning Fabric from the recipe and torchrun's environment, and choice of devices."""

from __future__ import annotations

import os
import platform
import warnings
from typing import TYPE_CHECKING, Literal

import torch
from lightning_fabric import Fabric

from fer_agent.errors import UsageError

if TYPE_CHECKING:
    from fer_trainer.recipe import Recipe


def launch(recipe: Recipe, *, accelerator: str = "auto", threads: int = 0) -> Fabric:
    """Start Fabric: one device, or under `torchrun` as many processes as it says, on all nodes.

    Args:
        recipe: its precision and determinism.
        accelerator: `auto`, `cpu` or `cuda`.
        threads: of the CPU, for each process; 0 leaves torch's choice.
    """
    if threads:
        torch.set_num_threads(threads)
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    nodes = int(os.environ.get("WORLD_SIZE", "1")) // processes
    if recipe.train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(mode=True)
    else:
        torch.backends.cudnn.benchmark = True  # a run's batches all have the same shape
    with warnings.catch_warnings():
        # Fabric advises more threads or other precisions; the recipe has decided.
        warnings.simplefilter("ignore")
        fabric = Fabric(
            accelerator=accelerator,
            devices=processes,
            num_nodes=nodes,
            strategy="ddp" if processes * nodes > 1 else "auto",
            precision=_precision(recipe, accelerator),
        )
        fabric.launch()
    return fabric


def _precision(recipe: Recipe, accelerator: str) -> Literal["32-true", "bf16-mixed"]:
    if recipe.train.precision != "auto":
        return recipe.train.precision
    on_gpu = accelerator != "cpu" and torch.cuda.is_available()
    return "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported() else "32-true"


def is_first_process() -> bool:
    """Return whether this is the process of `torchrun` that prints and writes."""
    return os.environ.get("RANK", "0") == "0"


def device_name(device: torch.device) -> str:
    """Name a device for the record, e.g. `cpu, x86_64, 2 threads`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {platform.machine()}, {torch.get_num_threads()} threads"


def best_device() -> torch.device:
    """Give the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def open_device(name: str, *, threads: int = 0) -> torch.device:
    """Give the device that the user names: `auto`, `cpu` or `cuda`.

    Raises:
        UsageError: there is no such device.
    """
    if threads:
        torch.set_num_threads(threads)
    if name == "auto":
        return best_device()
    if name not in {"cpu", "cuda"} or (name == "cuda" and not torch.cuda.is_available()):
        raise UsageError(f"there is no device {name!r} here", remedy="use --device cpu")
    return torch.device(name)
