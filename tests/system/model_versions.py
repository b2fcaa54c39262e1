"""Versions of one model for a test that walks its whole life: made of the shipped one's graph.

`first` is that model under another name, `second` knows an eighth class, `broken` computes the
same but takes far too long, which shows on the device only.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fer_agent.inference import golden
from fer_agent.inference.onnx import OnnxSession
from fer_agent.models.store import file_sha256, find_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Alter = Callable[[onnx.GraphProto], tuple[str, ...]]

NAME = "life"
SHIPPED = "microexpnet-fer2013"
WASTE = 60
"""Products of 256 x 256 matrices: some 20 ms on a core of 2020, against 1 ms for the model."""


def first(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Change nothing."""
    return _labels()


def second(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Add an eighth class that is never the likeliest."""
    _insert_before_logits(
        graph,
        [
            helper.make_node("ReduceMin", ["read", "classes"], ["least"], keepdims=1),
            helper.make_node("Sub", ["least", "gap"], ["never"]),
            helper.make_node("Concat", ["read", "never"], ["logits"], axis=1),
        ],
        [
            numpy_helper.from_array(np.array([1], np.int64), "classes"),
            numpy_helper.from_array(np.array([[5.0]], np.float32), "gap"),
        ],
    )
    return (*_labels(), "contempt")


def broken(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Compute the same after a lot of work for nothing."""
    nodes = [
        helper.make_node("ReduceMin", ["read"], ["small"], keepdims=1),
        helper.make_node("Mul", ["small", "square"], ["product0"]),
        *(
            helper.make_node("MatMul", [f"product{step}", "square"], [f"product{step + 1}"])
            for step in range(WASTE)
        ),
        helper.make_node("ReduceMean", [f"product{WASTE}"], ["waste"], keepdims=1),
        helper.make_node("Mul", ["waste", "naught"], ["idle"]),
        helper.make_node("Add", ["read", "idle"], ["logits"]),
    ]
    square = np.full((256, 256), 1e-6, np.float32)
    naught = np.zeros((1, 1), np.float32)
    constants = [numpy_helper.from_array(square, "square")]
    _insert_before_logits(graph, nodes, [*constants, numpy_helper.from_array(naught, "naught")])
    return _labels()


def write_version(folder: Path, version: str, alter: Alter) -> Path:
    """Write a whole model folder with golden inputs of its own."""
    shipped = find_model(SHIPPED)
    model = onnx.load(str(shipped.verified_file()))
    labels = alter(model.graph)
    model.doc_string = f"version {version}"
    path = folder / NAME
    path.mkdir(parents=True)
    (path / "model.onnx").write_bytes(model.SerializeToString())
    source = shipped.golden_file()
    assert source is not None
    answers = golden.record(OnnxSession(path / "model.onnx"), golden.load(source).input)
    (path / "golden.npz").write_bytes(golden.encode(answers))
    manifest = json.loads((shipped.folder / "manifest.json").read_text(encoding="utf-8"))
    manifest |= {
        "name": NAME,
        "version": version,
        "labels": labels,
        "files": [_entry(path / "model.onnx") | {"precision": "fp32"}],
        "golden": _entry(path / "golden.npz"),
        "metrics": [],
    }
    (path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return path


def write_detector(folder: Path, network: Path) -> Path:
    """Write the folder of a face detector around its network."""
    folder.mkdir()
    shutil.copy(network, folder / "yunet.onnx")
    manifest = {
        "schema_version": 1,
        "name": "yunet",
        "version": "2023.3.0",
        "task": "face-detection",
        "files": [_entry(folder / "yunet.onnx") | {"precision": "fp32"}],
        "source": "https://github.com/ShiqiYu/libfacedetection.train",
        "licence": "Apache-2.0",
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def _labels() -> tuple[str, ...]:
    return find_model(SHIPPED).manifest.labels


def _insert_before_logits(
    graph: onnx.GraphProto, nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]
) -> None:
    """Rename the graph's output to `read` and make `logits` of it."""
    for node in graph.node:
        node.output[:] = ["read" if name == "logits" else name for name in node.output]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    width = len(_labels()) + any(node.op_type == "Concat" for node in nodes)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", width]))


def _entry(path: Path) -> dict[str, Any]:
    return {
        "path": path.name,
        "sha256": file_sha256(path),
        "bytes": path.stat().st_size,
    }
