"""The least time of a network: its multiplications and bytes divided by a core's rates.

Needs the `onnx` package, which the trainer's extra brings.

    python benchmarks/floor.py --shared ../shared
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import NamedTuple

import onnx
from onnx import numpy_helper, shape_inference

from fer_agent.models.store import find_model


class Core(NamedTuple):
    """One core's rates.

    Attributes:
        name: board and core.
        ghz: clock.
        macs_per_cycle: four for each 128-bit unit that multiplies and adds.
        gb_per_s: memory bandwidth of the board, which one core alone seldom reaches.
    """

    name: str
    ghz: float
    macs_per_cycle: int
    gb_per_s: float


CORES = (
    Core("Raspberry Pi 4, Cortex-A72", 1.8, 4, 12.8),
    Core("Raspberry Pi 5, Cortex-A76", 2.4, 8, 17.1),
    Core("Jetson Orin Nano, Cortex-A78AE", 1.5, 8, 68.0),
    Core("x86-64 with AVX2, 2.45 GHz", 2.45, 16, 25.6),
)


class Work(NamedTuple):
    """The work of one run of a network.

    Attributes:
        macs: multiply-adds of its convolutions and matrix products.
        weight_bytes: float32 weights, read once.
        tensor_bytes: reads and writes of all its operators, as float32.
    """

    macs: int
    weight_bytes: int
    tensor_bytes: int


def work(path: Path, shape: tuple[int, ...]) -> Work:
    """Count the work of a network on one input of a shape."""
    model = onnx.load(path)
    for dimension, length in zip(
        model.graph.input[0].type.tensor_type.shape.dim, shape, strict=True
    ):
        dimension.dim_value = length
    model = shape_inference.infer_shapes(model, data_prop=True)
    weights = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    shapes = {
        value.name: [each.dim_value for each in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.value_info, *model.graph.output)
    }
    macs = moved = 0
    for node in model.graph.node:
        out = math.prod(shapes.get(node.output[0], [0]))
        if node.op_type == "Conv":
            macs += out * math.prod(weights[node.input[1]].shape[1:])
        elif node.op_type in {"Gemm", "MatMul"} and node.input[1] in weights:
            macs += weights[node.input[1]].size
        if node.op_type in {"Conv", "Gemm", "MatMul", "MaxPool", "Add", "Mul", "Resize"}:
            moved += out + sum(math.prod(shapes.get(name, [0])) for name in node.input)
    size = sum(weight.nbytes for weight in weights.values())
    return Work(macs, size, 4 * moved)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--model", default="microexpnet-ferplus")
    args = parser.parse_args()
    yunet = args.shared / "models" / "yunet_s_dynamic.onnx"
    model = find_model(args.model, Path("/nowhere"))
    for name, path, shape in (
        ("YuNet, 320x256", yunet, (1, 3, 256, 320)),
        ("YuNet, 160x128", yunet, (1, 3, 128, 160)),
        (args.model, model.verified_file("fp32"), (1, 1, 48, 48)),
    ):
        done = work(path, shape)
        print(
            f"{name}: {done.macs / 1e6:.1f} M multiply-adds, {done.weight_bytes / 1e6:.2f} MB of "
            f"weights, {done.tensor_bytes / 1e6:.1f} MB between operators"
        )
        for core in CORES:
            compute_ms = done.macs / (core.ghz * 1e6 * core.macs_per_cycle)
            memory_ms = done.weight_bytes / (core.gb_per_s * 1e6)
            print(f"  {core.name}: {compute_ms:.2f} ms to multiply, {memory_ms:.2f} ms to read")


if __name__ == "__main__":
    main()
