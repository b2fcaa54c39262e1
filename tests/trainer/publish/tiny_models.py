"""Whole model folders of a few kilobytes, with a graph, golden inputs and a manifest."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fer_agent.inference import golden
from fer_agent.inference.onnx import OnnxSession
from fer_agent.models.store import file_sha256

if TYPE_CHECKING:
    from pathlib import Path

LABELS = ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"]


def write_model(folder: Path, *, version: str = "1.0.0", seed: int = 1) -> Path:
    folder.mkdir()
    file = folder / "model.onnx"
    write_graph(file, seed)
    inputs = np.random.default_rng(seed).integers(0, 256, (8, 1, 8, 8), dtype=np.uint8)
    path = folder / golden.FILE_NAME
    path.write_bytes(golden.encode(golden.record(OnnxSession(file), inputs)))
    manifest = {
        "schema_version": 1,
        "name": folder.name,
        "version": version,
        "task": "facial-emotion",
        "files": [entry(file) | {"precision": "fp32"}],
        "golden": entry(path),
        "input": {"shape": ["N", 1, 8, 8], "dtype": "uint8", "layout": "NCHW", "colour": "gray"},
        "labels": LABELS,
        "preprocessing": "in-graph",
        "calibration": {"temperature": 0.9, "abstain_below": 0.25},
        "parameters": 448,
        "macs": 448,
        "provenance": {
            "recipe": "tests-smoke",
            "seed": seed,
            "commit": "0" * 40,
            "data_sha256": "0" * 64,
            "epochs": 0,
            "device": "cpu",
            "created": "2026-01-01T00:00:00+00:00",
        },
        "licence": "Apache-2.0",
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def change_manifest(folder: Path, **fields: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def entry(path: Path) -> dict[str, Any]:
    return {"path": path.name, "sha256": file_sha256(path), "bytes": path.stat().st_size}


def write_graph(path: Path, seed: int) -> None:
    """Write a linear classifier of 8x8 crops, with the seed's weights."""
    weights = np.random.default_rng(seed).normal(size=(64, 7)).astype(np.float32) / 255.0
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["crops"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["float"], ["flat"], axis=1),
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("crops", TensorProto.UINT8, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 7])],
        [numpy_helper.from_array(weights, "weights")],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
