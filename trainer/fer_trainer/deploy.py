"""The deployed network, from uint8 crops to logits, and its ONNX graph checked against PyTorch."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.flop_counter import FlopCounterMode

from fer_agent.errors import FindingsError
from fer_agent.inference.onnx import OnnxSession
from fer_trainer.data.faceset import SIZE_PX
from fer_trainer.networks.build import rebuild_network

if TYPE_CHECKING:
    from fer_trainer.checkpoint import Checkpoint
    from fer_trainer.data.faceset import Float32Array, UInt8Array

MAX_DIFFERENCE = 1e-4
"""Largest difference of a logit between PyTorch and the exported graph."""

_BATCH = 256

OPSET = 18
"""Read by ONNX Runtime from 1.14 and TensorRT from 8.6, the oldest we run on."""


class Deployed(nn.Module):
    """Puts the preprocessing in front of a network.

    Args:
        network: takes gray in [0, 1].
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, crops: Tensor) -> Tensor:
        """Turn uint8 crops (N, 1, 48, 48) into logits, float32 (N, C)."""
        return self.network(crops.float() / 255.0)  # type: ignore[no-any-return]  # torch modules return Any


def network_of(checkpoint: Checkpoint) -> nn.Module:
    """Rebuild a checkpoint's averaged network, in evaluation mode, on the CPU."""
    network = rebuild_network(checkpoint.parsed_recipe.network, len(checkpoint.labels))
    average = AveragedModel(network, use_buffers=True)
    average.load_state_dict(checkpoint.ema)
    inner: nn.Module = average.module
    return inner.eval()


def count_macs(network: nn.Module) -> int:
    """Count the multiply-accumulates of one crop."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 1, SIZE_PX, SIZE_PX))
    return int(counter.get_total_flops()) // 2


def export_onnx(network: nn.Module) -> onnx.ModelProto:
    """Make the graph: input `crops`, uint8 (N, 1, 48, 48), output `logits`, float32 (N, C)."""
    deployed = Deployed(network).eval()
    example = torch.zeros(2, 1, SIZE_PX, SIZE_PX, dtype=torch.uint8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecated parts
        program = torch.onnx.export(
            deployed,
            (example,),
            dynamo=True,
            input_names=["crops"],
            output_names=["logits"],
            dynamic_shapes={"crops": {0: torch.export.Dim("N", min=1, max=4096)}},
            opset_version=OPSET,
            verbose=False,
        )
    if program is None:
        raise FindingsError("torch exported nothing", remedy="install torch 2.5 or newer")
    model: onnx.ModelProto = program.model_proto
    return without_notes(model)


def without_notes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove the exporter's source positions and paths, half of a small file."""
    del model.metadata_props[:]
    graph = model.graph
    del graph.metadata_props[:]
    graph.doc_string = ""
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.value_info[:]
    return model


def graph_logits(session: OnnxSession, crops: UInt8Array) -> Float32Array:
    """Run crops, uint8 (N, 48, 48), through an exported graph; logits, float32 (N, C)."""
    parts = []
    for start in range(0, len(crops), _BATCH):
        (logits,) = session.run(np.array(crops[start : start + _BATCH])[:, np.newaxis]).values()
        parts.append(logits.astype(np.float32))
    return np.concatenate(parts)


def largest_difference(network: nn.Module, model: onnx.ModelProto, crops: UInt8Array) -> float:
    """Give the largest gap of a logit to PyTorch on real crops, uint8 (N, 48, 48)."""
    with torch.no_grad():
        ours = Deployed(network)(torch.tensor(crops).unsqueeze(1)).numpy()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, str(path))
        theirs = graph_logits(OnnxSession(path, threads=2), crops)
    return float(np.abs(ours - theirs).max())


def refuse_difference(network: nn.Module, model: onnx.ModelProto, crops: UInt8Array) -> float:
    """Check the graph against PyTorch.

    Returns:
        The largest difference of a logit.

    Raises:
        FindingsError: it is more than 1e-4.
    """
    gap = largest_difference(network, model, crops)
    if not gap <= MAX_DIFFERENCE:
        raise FindingsError(
            f"the exported graph differs from PyTorch by {gap:.2e} in a logit, "
            f"more than {MAX_DIFFERENCE:.0e}",
            remedy="nothing was written; try another torch or onnxruntime version",
        )
    return gap
