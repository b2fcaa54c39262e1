"""Real models of a few hundred bytes, good ones and bad ones, as folders like those published."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from manifests import entry, manifest

from fer_agent.inference import golden
from fer_agent.inference.onnx import OnnxSession

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LABELS = ("happy", "sad", "neutral")
NAME = "tiny"


@dataclass(frozen=True)
class ModelTraits:
    """What is wrong with a model, if anything is.

    Attributes:
        labels: its classes.
        work: matrix products of 256 x 256 that it does for nothing.
        fails_on_white: whether it fails on a crop that is white, as no golden input is.
        white: the mean brightness from which on a crop counts as white.
        golden_off: what is added to the golden outputs.
    """

    labels: tuple[str, ...] = LABELS
    work: int = 0
    fails_on_white: bool = False
    white: float = 255.0
    golden_off: float = 0.0


GOOD = ModelTraits()


def graph_bytes(kind: ModelTraits, seed: int) -> bytes:
    """A network: logits are the crop's mean brightness times weights of its own."""
    onnx = pytest.importorskip("onnx", reason="onnx comes with the trainer extra")
    helper, kinds = onnx.helper, onnx.TensorProto
    weights = np.random.default_rng(seed).normal(size=(1, len(kind.labels))) / 64
    nodes = [
        helper.make_node("Cast", ["crops"], ["floats"], to=kinds.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "last"], ["column"]),
        helper.make_node("MatMul", ["column", "weights"], ["read"]),
    ]
    constants = [
        helper.make_tensor("last", kinds.INT64, [1], [1]),
        helper.make_tensor(
            "weights", kinds.FLOAT, list(weights.shape), weights.astype(np.float32).ravel()
        ),
    ]
    out = "read"
    if kind.fails_on_white:
        # Looks up entry 1 of 1 for a mean that is white: "indices element out of data bounds".
        nodes += [
            helper.make_node("Div", ["mean", "most"], ["share"]),
            helper.make_node("Floor", ["share"], ["full"]),
            helper.make_node("Cast", ["full"], ["index"], to=kinds.INT64),
            helper.make_node("Gather", ["zero", "index"], ["nothing"]),
            helper.make_node("Unsqueeze", ["nothing", "last"], ["nothings"]),
            helper.make_node("Add", [out, "nothings"], ["fragile"]),
        ]
        constants += [
            helper.make_tensor("most", kinds.FLOAT, [1], [kind.white]),
            helper.make_tensor("zero", kinds.FLOAT, [1], [0.0]),
        ]
        out = "fragile"
    if kind.work:
        # Depends on the input, so that nothing is folded away.
        nodes += [
            helper.make_node("Unsqueeze", ["column", "last"], ["cube"]),
            helper.make_node("Mul", ["cube", "square"], ["product0"]),
        ]
        constants.append(
            helper.make_tensor("square", kinds.FLOAT, [256, 256], np.full(65536, 1e-6, np.float32))
        )
        for step in range(kind.work):
            nodes.append(
                helper.make_node("MatMul", [f"product{step}", "square"], [f"product{step + 1}"])
            )
        nodes += [
            helper.make_node(
                "ReduceMean", [f"product{kind.work}"], ["waste"], axes=[1, 2], keepdims=0
            ),
            helper.make_node("Unsqueeze", ["waste", "last"], ["wastes"]),
            helper.make_node("Mul", ["wastes", "naught"], ["idle"]),
            helper.make_node("Add", [out, "idle"], ["worked"]),
        ]
        constants.append(helper.make_tensor("naught", kinds.FLOAT, [1], [0.0]))
        out = "worked"
    nodes.append(helper.make_node("Identity", [out], ["logits"]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("crops", kinds.UINT8, ["N", 1, 48, 48])],
        [helper.make_tensor_value_info("logits", kinds.FLOAT, ["N", len(kind.labels)])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


def write_model(folder: Path, version: str, kind: ModelTraits = GOOD, name: str = NAME) -> Path:
    """Write a whole model; its weights depend on the version."""
    folder.mkdir(parents=True)
    network = graph_bytes(kind, seed=int(version.replace(".", "")))
    (folder / "model.onnx").write_bytes(network)
    session = OnnxSession(folder / "model.onnx")
    crops = np.random.default_rng(0).integers(1, 256, (8, 1, 48, 48)).astype(np.uint8)
    inputs = golden.record(session, crops)
    outputs = {key: array + np.float32(kind.golden_off) for key, array in inputs.outputs.items()}
    answers = golden.encode(golden.Golden(inputs.input, outputs))
    (folder / "golden.npz").write_bytes(answers)
    told = manifest(
        network,
        name=name,
        version=version,
        golden=entry(answers, "golden.npz"),
        labels=list(kind.labels),
        calibration={"temperature": 1.0, "abstain_below": 0.2},
    )
    (folder / "manifest.json").write_text(json.dumps(told), encoding="utf-8")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def stage(store: Path) -> Callable[..., Path]:
    """A function that stages a version of the model, as a sync would."""

    def make(version: str, *, name: str = NAME, **traits: Any) -> Path:
        folder = store / ".staging" / f"{name}-{version}"
        return write_model(folder, version, ModelTraits(**traits), name)

    return make
