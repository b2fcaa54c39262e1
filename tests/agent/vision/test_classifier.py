from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from fer_agent.errors import ModelContractError, ModelFileError
from fer_agent.inference.onnx import OnnxSession
from fer_agent.models.manifest import Manifest
from fer_agent.models.store import StoredModel, find_model
from fer_agent.vision.classifier import CropClassifier, softmax
from fer_agent.vision.crop import crop_faces
from fer_agent.vision.records import Frame, Tracks

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

onnx = pytest.importorskip("onnx", reason="onnx comes with the trainer extra")

LABELS = ("happy", "sad", "neutral")


def manifest(**changes: Any) -> Manifest:
    content: dict[str, Any] = {
        "name": "tiny",
        "version": "1.0.0",
        "task": "facial-emotion",
        "files": [{"path": "model.onnx", "precision": "fp32", "sha256": "0" * 64, "bytes": 1}],
        "input": {"shape": ["N", 1, 48, 48], "dtype": "uint8", "layout": "NCHW", "colour": "gray"},
        "labels": LABELS,
        "preprocessing": "in-graph",
        "calibration": {"temperature": 2.0, "abstain_below": 0.3},
        "parameters": 1,
        "macs": 1,
        "provenance": {
            "recipe": "by hand",
            "seed": 0,
            "commit": "0",
            "data_sha256": "0",
            "epochs": 0,
            "device": "cpu",
            "created": "2026-01-01T00:00:00Z",
        },
        "licence": "Apache-2.0",
    }
    return Manifest.model_validate(content | changes)


def tiny_network(
    folder: Path,
    *,
    batch: str | int = "N",
    size: int = 48,
    outputs: int = len(LABELS),
    dtype: str = "UINT8",
) -> OnnxSession:
    """A real network: logits are the crop's mean brightness times 0, 1, 2, ... / 255."""
    helper, kinds = onnx.helper, onnx.TensorProto
    kind = getattr(kinds, dtype)
    rates = np.arange(outputs, dtype=np.float32)[np.newaxis] / 255
    nodes = [
        helper.make_node("Cast", ["crops"], ["floats"], to=kinds.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "last"], ["column"]),
        helper.make_node("MatMul", ["column", "rates"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("crops", kind, [batch, 1, size, size])],
        [helper.make_tensor_value_info("logits", kinds.FLOAT, [batch, outputs])],
        [
            helper.make_tensor("last", kinds.INT64, [1], [1]),
            helper.make_tensor("rates", kinds.FLOAT, list(rates.shape), rates.ravel()),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return OnnxSession(path)


def tracks(*boxes: tuple[float, float, float, float]) -> Tracks:
    count = len(boxes)
    return Tracks(
        track_id=np.arange(1, count + 1),
        xyxy=np.array(boxes, np.float32).reshape(count, 4),
        score=np.ones(count, np.float32),
        landmarks=np.full((count, 5, 2), np.nan, np.float32),
        frame_size=(200, 100),
    )


class RunCountingSession:
    """A session, and the batch sizes it ran."""

    def __init__(self, session: OnnxSession) -> None:
        self._session = session
        self.batches: list[int] = []
        self.input_shape = session.input_shape

    def run(self, tensor: np.ndarray) -> dict[str, np.ndarray]:
        self.batches.append(len(tensor))
        return self._session.run(tensor)


def test_all_faces_of_a_frame_go_in_one_batch_in_their_order(tmp_path: Path) -> None:
    session = RunCountingSession(tiny_network(tmp_path))
    classifier = CropClassifier(session, manifest())
    session.batches.clear()
    luma = np.zeros((100, 200), np.uint8)
    luma[:, 100:] = 255
    scores = classifier.classify(
        Frame(luma, 0, 0), tracks((20, 20, 60, 60), (130, 20, 170, 60), (20, 20, 60, 60))
    )
    assert session.batches == [3]
    assert scores.labels == classifier.labels == LABELS
    assert scores.probs.dtype == np.float32
    assert scores.probs[0].tolist() == pytest.approx([1 / 3] * 3)
    assert np.array_equal(scores.probs[0], scores.probs[2])
    assert scores.probs[1].argmax() == 2


def test_a_frame_without_faces_runs_nothing(tmp_path: Path) -> None:
    session = RunCountingSession(tiny_network(tmp_path))
    classifier = CropClassifier(session, manifest())
    session.batches.clear()
    scores = classifier.classify(Frame(np.zeros((100, 200), np.uint8), 0, 0), tracks())
    assert scores.probs.shape == (0, 3)
    assert classifier.probs(np.empty((0, 1, 48, 48), np.uint8)).shape == (0, 3)
    assert session.batches == []


def expected_probs(logits: NDArray[np.generic], temperature: float) -> NDArray[np.float64]:
    """The definition, in float64."""
    powers = np.exp(logits.astype(np.float64) / temperature)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("temperature", [0.3, 0.5586, 1.0, 1.7, 4.0])
def test_probabilities_are_the_softmax_of_logits_over_temperature_for_any_number_of_faces(
    tmp_path: Path, temperature: float
) -> None:
    session = tiny_network(tmp_path)
    calibration = {"temperature": temperature, "abstain_below": 0.0}
    classifier = CropClassifier(session, manifest(calibration=calibration))
    luma = np.tile(np.arange(200, dtype=np.uint8), (100, 1))
    for count in range(1, 13):
        found = tracks(*((14.0 * face, 30.0, 14.0 * face + 40, 80.0) for face in range(count)))
        crops = crop_faces(luma, found.xyxy, (48, 48))
        expected = expected_probs(session.run(crops)["logits"], temperature)
        assert expected.std(axis=0).min() > 0 or count == 1  # the faces differ
        scores = classifier.classify(Frame(luma, 0, 0), found)
        for probs in (scores.probs, classifier.probs(crops)):
            assert probs.dtype == np.float32
            np.testing.assert_allclose(probs, expected, rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.25, 1.0, 8.0])
def test_softmax_survives_extreme_logits(temperature: float) -> None:
    logits = np.array([[1e30, -1e30, 0], [-1e4, -1e4, -1e4]], np.float32)
    probs = softmax(logits, np.float32(temperature))
    assert probs[0].tolist() == [1, 0, 0]
    assert probs[1].tolist() == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_softmax_is_float32_of_logits_of_any_precision(dtype: type[np.floating[Any]]) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (5, 8)).astype(dtype)
    probs = softmax(logits, np.float32(0.7))
    assert probs.dtype == np.float32
    np.testing.assert_allclose(probs, expected_probs(logits, 0.7), rtol=1e-5)


def test_another_number_of_outputs_than_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelContractError, match="3 labels") as caught:
        CropClassifier(tiny_network(tmp_path, outputs=8), manifest())
    assert caught.value.remedy


def test_another_crop_size_than_the_manifests_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelContractError, match=r"takes \['N', 1, 64, 64\].*48, 48"):
        CropClassifier(tiny_network(tmp_path, size=64), manifest())


def test_a_network_that_wants_floats_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelContractError, match="does not take uint8"):
        CropClassifier(tiny_network(tmp_path, dtype="FLOAT"), manifest())


def test_a_network_for_one_face_at_a_time_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelContractError, match=r"takes \[1, 1, 48, 48\]"):
        CropClassifier(tiny_network(tmp_path, batch=1), manifest())


def shipped() -> StoredModel:
    try:
        return find_model("microexpnet-fer2013")
    except ModelFileError:
        pytest.skip("no model is shipped with this checkout")


def test_the_shipped_model_keeps_its_contract() -> None:
    model = shipped()
    classifier = CropClassifier(OnnxSession(model.verified_file()), model.manifest)
    crops = np.random.default_rng(0).integers(0, 256, (5, 1, 48, 48)).astype(np.uint8)
    probs = classifier.probs(crops)
    assert probs.shape == (5, len(model.manifest.labels))
    assert probs.sum(axis=1) == pytest.approx(1, abs=1e-5)
    one_by_one = np.concatenate([classifier.probs(crop[np.newaxis]) for crop in crops])
    assert np.allclose(probs, one_by_one, atol=1e-4)


def test_the_shipped_model_calls_the_astronaut_happy(shared: Path) -> None:
    model = shipped()
    classifier = CropClassifier(OnnxSession(model.verified_file()), model.manifest)
    luma = cv2.imread(str(shared / "media" / "astronaut.png"), cv2.IMREAD_GRAYSCALE)
    scores = classifier.classify(
        Frame(np.asarray(luma, np.uint8), 0, 0), tracks((177, 64, 268, 178))
    )
    assert scores.labels[int(scores.probs[0].argmax())] == "happy"
