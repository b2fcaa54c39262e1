"""Golden inputs: a few pictures with the outputs of a model's own FP32 file.

They go with a model's files. Each runtime, board and precision is checked against them before it
is used.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fer_agent.errors import ModelContractError, ModelFileError
from fer_agent.models.store import StoredModel
from fer_agent.vision.ports import InferenceSession

FILE_NAME = "golden.npz"

LEAST_INPUTS = 8

_LEAST_SCALE = 1e-3
"""Outputs that are all smaller count as if their largest number were this."""

_OUTPUT = "output:"
"""Before the name of each output in the file."""


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """Inputs of a graph and the outputs of its FP32 file in ONNX Runtime.

    Attributes:
        input: N inputs, as the graph takes them; uint8 (N, 1, h, w) for a classifier.
        outputs: arrays by the names of the graph's outputs, N rows each for a classifier.
    """

    input: NDArray[np.generic]
    outputs: Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The largest difference of outputs.

    Attributes:
        relative_difference: largest difference of an output's numbers, as a share of the largest
            number there.
        label_disagreements: share of the inputs whose likeliest class may be another one.
    """

    relative_difference: float
    label_disagreements: float = 0.0


TOLERANCES: Mapping[str, Tolerance] = {
    "fp32": Tolerance(relative_difference=2e-4),
    "fp16": Tolerance(relative_difference=0.02),
    "int8": Tolerance(relative_difference=0.25, label_disagreements=0.125),
}
"""By precision. Of the shipped models FP16 is off by at most 0.003 of the largest logit with no
other label, INT8 by 0.12 with another label for one picture of 24.
"""


@dataclass(frozen=True, slots=True)
class Agreement:
    """The difference of a session's outputs from golden ones.

    Attributes:
        inputs: number of inputs compared.
        largest_difference: of any number of any output; inf where one is not finite.
        relative_difference: the same as a share of the largest number of that output.
        label_disagreements: number of inputs whose likeliest class is another one.
    """

    inputs: int
    largest_difference: float
    relative_difference: float
    label_disagreements: int

    def within(self, tolerance: Tolerance) -> bool:
        """Return whether the difference is within a tolerance."""
        return (
            self.relative_difference <= tolerance.relative_difference
            and self.label_disagreements <= tolerance.label_disagreements * self.inputs
        )


class DisagreementError(ModelContractError):
    """A session does not agree with the model's FP32 file.

    Attributes:
        agreement: the difference.
    """

    def __init__(self, agreement: Agreement, tolerance: Tolerance) -> None:
        super().__init__(
            f"the outputs on golden inputs are off by {agreement.largest_difference:.3g}, "
            f"{agreement.relative_difference:.2%} of the largest "
            f"(limit {tolerance.relative_difference:.2%}), with another label for "
            f"{agreement.label_disagreements} of {agreement.inputs}",
            remedy="run the model in another precision or on another runtime, or fetch it again",
        )
        self.agreement = agreement


def load(path: Path, least: int = LEAST_INPUTS) -> Golden:
    """Read golden inputs and outputs.

    Args:
        path: the file.
        least: smallest number of inputs.

    Raises:
        ModelFileError: the file cannot be read, or is no file of golden inputs.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            content = {name: arrays[name] for name in arrays.files}
        golden = Golden(
            input=content.pop("input"),
            outputs={name.removeprefix(_OUTPUT): array for name, array in content.items()},
        )
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    except KeyError as error:
        raise _unreadable(path, f"it has no array named {error}") from error
    except (
        ValueError,
        TypeError,
        AttributeError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise _unreadable(path, str(error)) from error
    if len(golden.input) < least or not golden.outputs:
        raise _unreadable(
            path, f"it has {len(golden.input)} inputs and {len(golden.outputs)} outputs"
        )
    return golden


def of_model(model: StoredModel) -> Golden:
    """Read a model's golden inputs; of an older model without any, make them from its FP32 file.

    Raises:
        ModelError: a file is missing, damaged, or not the manifest's.
    """
    path = model.golden_file()
    if path is not None:
        return load(path)
    from fer_agent.inference import golden_pictures  # noqa: PLC0415  OpenCV, for older models only
    from fer_agent.inference.onnx import OnnxSession  # noqa: PLC0415  likewise

    inputs = golden_pictures.gray_crops(model.manifest.input.size)
    return record(OnnxSession(model.verified_file("fp32")), inputs)


def encode(golden: Golden) -> bytes:
    """Return the content of a file of golden inputs; the same for the same arrays."""
    buffer = io.BytesIO()
    outputs = {_OUTPUT + name: array for name, array in golden.outputs.items()}
    np.savez_compressed(buffer, input=golden.input, **outputs)  # type: ignore[arg-type]
    return buffer.getvalue()


def record(session: InferenceSession, inputs: NDArray[np.generic]) -> Golden:
    """Run inputs and return them with their outputs.

    Raises:
        InferenceError: the runtime refused the inputs or failed while running.
    """
    return Golden(input=inputs, outputs=dict(session.run(inputs)))


def compare(session: InferenceSession, golden: Golden) -> Agreement:
    """Run golden inputs and return the difference of the outputs.

    Raises:
        ModelContractError: the session has outputs of other names or shapes.
        InferenceError: the runtime refused the inputs or failed while running.
    """
    outputs = session.run(golden.input)
    have = {name: array.shape for name, array in outputs.items()}
    want = {name: array.shape for name, array in golden.outputs.items()}
    if have != want:
        raise ModelContractError(
            f"the graph puts out {have} on golden inputs, expected {want}",
            remedy="reinstall the model, or export it again with `fer-train export`",
        )
    apart = {name: _difference(outputs[name], golden.outputs[name]) for name in want}
    return Agreement(
        inputs=len(golden.input),
        largest_difference=max(apart.values()),
        relative_difference=max(apart[name] / _scale(golden.outputs[name]) for name in want),
        label_disagreements=sum(
            _disagreements(outputs[name], golden.outputs[name]) for name in want
        ),
    )


def check(session: InferenceSession, golden: Golden, tolerance: Tolerance) -> Agreement:
    """Run golden inputs and raise an error when the outputs differ too much.

    Raises:
        DisagreementError: the outputs are off by more than the tolerance.
        ModelContractError: the session has outputs of other names or shapes.
        InferenceError: the runtime refused the inputs or failed while running.
    """
    agreement = compare(session, golden)
    if not agreement.within(tolerance):
        raise DisagreementError(agreement, tolerance)
    return agreement


def _difference(have: NDArray[np.generic], want: NDArray[np.generic]) -> float:
    largest = float(np.abs(have.astype(np.float64) - want.astype(np.float64)).max(initial=0.0))
    return largest if np.isfinite(largest) else float("inf")


def _scale(want: NDArray[np.generic]) -> float:
    return max(float(np.abs(want).max(initial=0.0)), _LEAST_SCALE)


def _disagreements(have: NDArray[np.generic], want: NDArray[np.generic]) -> int:
    """Count other labels among rows of logits (N, C); an output of another shape has no labels."""
    if want.ndim != 2:
        return 0
    return int((have.argmax(axis=1) != want.argmax(axis=1)).sum())


def _unreadable(path: Path, why: str) -> ModelFileError:
    return ModelFileError(
        f"{path} has no golden inputs: {why}", remedy="reinstall the model, or fetch it again"
    )
