"""Static INT8 and FP16 graphs of a model, measured before they are kept."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from fer_agent.errors import FindingsError
from fer_agent.inference.onnx import OnnxSession
from fer_agent.models.manifest import read_manifest
from fer_agent.models.store import StoredModel
from fer_trainer.data.faceset import Split
from fer_trainer.deploy import graph_logits
from fer_trainer.errors import CheckpointError
from fer_trainer.files import write_bytes
from fer_trainer.release import model_file, write_golden, write_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fer_agent.models.manifest import Manifest, ModelFile
    from fer_trainer.data.faceset import FaceSet, Int64Array, UInt8Array

_CALIBRATION_BATCH = 32

_FLOAT_CONVOLUTIONS = (2, 4, 6)
"""Numbers of first convolutions that may stay float, with all before them: the ranges of their few
channels differ much. On FER2013's PublicTest two took the loss from 1.2 points to 0.1 to 0.5.
"""

_ENOUGH = 0.005
"""Accuracy that INT8 may lose before more convolutions stay float."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """One smaller graph.

    Attributes:
        file: as it is in the manifest.
        accuracy: on the validation split.
        lost: accuracy of the FP32 graph less this one's.
        agreement: share of validation crops with the same answer.
    """

    file: ModelFile
    accuracy: float
    lost: float
    agreement: float


class _Crops(quantization.CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Feeds calibration crops, (N, 48, 48), in batches."""

    def __init__(self, name: str, crops: UInt8Array) -> None:
        starts = range(0, len(crops), _CALIBRATION_BATCH)
        self._batches = iter(
            [{name: np.array(crops[i : i + _CALIBRATION_BATCH])[:, np.newaxis]} for i in starts]
        )

    def get_next(self) -> dict[str, UInt8Array] | None:
        return next(self._batches, None)


def quantize(
    folder: Path, faces: FaceSet, *, crops: int = 512, limit: float = 0.01
) -> tuple[Quantized, Quantized]:
    """Add `model.int8.onnx` and `model.fp16.onnx` to a model folder and its manifest.

    A model without golden inputs gets them too. The test split is not looked at. INT8 is
    calibrated on training crops; as few of its first convolutions stay float as lose half a point.

    Args:
        folder: a released model.
        faces: its data.
        crops: how many training crops calibrate.
        limit: largest loss of accuracy on the validation split, in [0, 1].

    Returns:
        The INT8 and the FP16 graph.

    Raises:
        CheckpointError: the data has other classes than the model.
        FindingsError: a graph loses more than the limit; nothing is kept.
        ModelError: the folder holds no model, or its file is not what the manifest says.
        StorageError: a file could not be written.
    """
    manifest = read_manifest(folder / "manifest.json")
    if manifest.labels != faces.labels:
        raise CheckpointError(
            f"the model knows {', '.join(manifest.labels)}, "
            f"but the data has {', '.join(faces.labels)}",
            remedy="use the data, votes and label map it was trained with",
        )
    source = StoredModel(folder=folder, manifest=manifest).verified_file("fp32")
    sample = faces.training().limited(crops).images
    with tempfile.TemporaryDirectory() as place:
        int8, fp16 = Path(place) / "int8.onnx", Path(place) / "fp16.onnx"
        onnx.save(_to_fp16(source), str(fp16))
        truth = faces.only(Split.VALID)
        before = _answers(source, truth)
        for kept_float in _FLOAT_CONVOLUTIONS:
            _to_int8(source, int8, sample, kept_float=kept_float)
            measured = _measured(before, int8, truth)
            if measured[1] <= _ENOUGH:
                break
        made = [measured, _measured(before, fp16, truth)]
        for (_, lost, _), precision in zip(made, ("int8", "fp16"), strict=True):
            _refuse_loss(lost, precision, limit)
        kept = []
        for (accuracy, lost, agreement), path, precision in zip(
            made, (int8, fp16), ("int8", "fp16"), strict=True
        ):
            target = folder / f"model.{precision}.onnx"
            write_bytes(target, path.read_bytes())
            file = model_file(target, precision).model_copy(
                update={"validation_accuracy": round(accuracy, 6)}
            )
            kept.append(Quantized(file, accuracy, lost, agreement))
    full = manifest.file("fp32").model_copy(
        update={"validation_accuracy": round(kept[0].accuracy + kept[0].lost, 6)}
    )
    _add_files(manifest, folder, [full, *(one.file for one in kept)])
    return kept[0], kept[1]


def _to_int8(source: Path, target: Path, crops: UInt8Array, *, kept_float: int) -> None:
    """Quantise weights per channel and activations per tensor, in QDQ form."""
    prepared = target.with_name("prepared.onnx")
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")  # of parts of onnx that onnxruntime still uses
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        graph = onnx.load(str(prepared)).graph
        quantization.quantize_static(
            str(prepared),
            str(target),
            _Crops(graph.input[0].name, crops),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            nodes_to_exclude=_first_nodes(graph, kept_float),
        )


def _first_nodes(graph: onnx.GraphProto, kept_float: int) -> list[str]:
    """Name the nodes up to the last convolution that stays float."""
    convolutions = [i for i, node in enumerate(graph.node) if node.op_type == "Conv"]
    last = convolutions[min(kept_float, len(convolutions)) - 1] if convolutions else -1
    return [node.name for node in graph.node[: last + 1]]


def _to_fp16(source: Path) -> Any:
    """Convert weights and arithmetic; crops come in as uint8 and logits leave as float32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights too small for half precision
        return convert_float_to_float16(onnx.load(str(source)), keep_io_types=True)


def _answers(graph: Path, valid: FaceSet) -> Int64Array:
    answers: Int64Array = graph_logits(OnnxSession(graph, threads=2), valid.images).argmax(axis=1)
    return answers


def _measured(before: Int64Array, graph: Path, valid: FaceSet) -> tuple[float, float, float]:
    """Compare a graph with the answers of its source: accuracy, accuracy lost, equal answers."""
    after = _answers(graph, valid)
    accuracy = float((after == valid.hard_labels).mean())
    lost = float((before == valid.hard_labels).mean()) - accuracy
    return accuracy, lost, float((before == after).mean())


def _refuse_loss(lost: float, precision: str, limit: float) -> None:
    if lost > limit:
        raise FindingsError(
            f"the {precision} graph loses {100 * lost:.2f} points of accuracy on the validation "
            f"split, more than {100 * limit:.2f}; nothing was kept",
            remedy="calibrate on more crops with --crops, or allow more with --limit",
        )


def _add_files(manifest: Manifest, folder: Path, files: list[ModelFile]) -> None:
    made = {file.precision for file in files}
    others = tuple(file for file in manifest.files if file.precision not in made)
    session = OnnxSession(folder / manifest.file("fp32").path)
    golden = manifest.golden or write_golden(folder, session, manifest.input.size)
    changes = {"files": (*others, *files), "golden": golden}
    write_manifest(manifest.model_copy(update=changes), folder)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence onnxruntime's quantiser, which logs through the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
