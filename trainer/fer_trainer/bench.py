"""The paper's latency measurement in PyTorch.

One crop at a time, 100 passes to warm up, 1,000 measured.
"""

from __future__ import annotations

import resource
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fer_trainer.data.faceset import SIZE_PX
from fer_trainer.deploy import count_macs
from fer_trainer.fabric import device_name

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Speed:
    """A network's latency, memory and size, measured on one device.

    Attributes:
        device: its name.
        runs: passes measured.
        mean_ms: mean latency.
        p50_ms: median.
        p95_ms: 95th percentile.
        fps: passes a second.
        peak_mb: on a GPU the most that tensors took, on a CPU the most the process was resident.
        parameters: of the network.
        macs: multiply-accumulates of one crop.
    """

    device: str
    runs: int
    mean_ms: float
    p50_ms: float
    p95_ms: float
    fps: float
    peak_mb: float
    parameters: int
    macs: int

    def as_json(self) -> dict[str, Any]:
        """Make a JSON tree."""
        return asdict(self)


@torch.inference_mode()
def measure(
    network: nn.Module, device: torch.device, *, runs: int = 1_000, warmup: int = 100
) -> Speed:
    """Measure a network's latency, one gray crop at a time.

    Args:
        network: takes float32 (1, 1, 48, 48); moved to the device.
        device: CPU or CUDA.
        runs: passes measured.
        warmup: passes before.
    """
    parameters = sum(p.numel() for p in network.parameters())
    macs = count_macs(network.cpu().eval())
    network = network.to(device)
    crop = torch.rand(1, 1, SIZE_PX, SIZE_PX, device=device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(warmup):
        network(crop)
    took_ms = np.empty(runs)
    for run in range(runs):
        _wait(device)
        started = time.perf_counter()
        network(crop)
        _wait(device)
        took_ms[run] = 1e3 * (time.perf_counter() - started)
    return Speed(
        device=device_name(device),
        runs=runs,
        mean_ms=float(took_ms.mean()),
        p50_ms=float(np.percentile(took_ms, 50)),
        p95_ms=float(np.percentile(took_ms, 95)),
        fps=float(1e3 / took_ms.mean()),
        peak_mb=_peak_mb(device),
        parameters=parameters,
        macs=macs,
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # KiB on Linux
