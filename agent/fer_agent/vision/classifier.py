"""The classifier, which turns crops of faces into calibrated emotion probabilities."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_agent.errors import InferenceError, ModelContractError
from fer_agent.models.manifest import Manifest
from fer_agent.vision.binding import bind
from fer_agent.vision.crop import crop_faces
from fer_agent.vision.ports import InferenceSession
from fer_agent.vision.records import EmotionScores, Float32Array, Frame, ModelIdentity, Tracks

_MOST_BOUND = 8
"""Most faces in a frame for which bound arrays of that batch size are kept."""


class CropClassifier:
    """Classifies gray face crops; satisfies `EmotionClassifier`; may be used from several threads.

    Args:
        session: the model's graph; preprocessing is inside, so it takes raw crops.
        manifest: labels in output order, crop size and calibration temperature.
        identity: the model that the scores name; by default the manifest's FP32 file.

    Raises:
        ModelContractError: the graph does not take the manifest's input in batches, or does not
            put out one logit for each of the manifest's labels.

    Attributes:
        labels: the C class names in output order.
    """

    def __init__(
        self,
        session: InferenceSession,
        manifest: Manifest,
        *,
        identity: ModelIdentity | None = None,
    ) -> None:
        self.labels = manifest.labels
        self._session = session
        self._identity = identity or ModelIdentity.of(manifest, manifest.file())
        self._size = manifest.input.size
        self._temperature = np.float32(manifest.calibration.temperature)
        no_probs = np.empty((0, len(self.labels)), np.float32)
        self._no_scores = EmotionScores(self.labels, no_probs, self._identity)
        self._idle: defaultdict[int, list[_Batch]] = defaultdict(list)
        self._output_name, self._output_dtype = self._check_contract(manifest)

    def classify(self, frame: Frame, tracks: Tracks) -> EmotionScores:
        """Classify all tracked faces of one frame in one batch."""
        count = len(tracks)
        if not count:
            return self._no_scores
        if count > _MOST_BOUND:
            probs = self.probs(crop_faces(frame.luma, tracks.xyxy, self._size))
        else:
            # Each thread takes a batch out of the list while it uses it.
            idle = self._idle[count]
            batch = idle.pop() if idle else self._bind(count)
            crop_faces(frame.luma, tracks.xyxy, self._size, out=batch.crops)
            batch.run()
            probs = softmax(batch.logits, self._temperature)
            idle.append(batch)
        return EmotionScores(labels=self.labels, probs=probs, model=self._identity)

    def probs(self, crops: NDArray[np.uint8]) -> Float32Array:
        """Return calibrated probabilities.

        Args:
            crops: uint8 (N, 1, h, w) of the manifest's size; with N = 0 nothing is run.

        Returns:
            float32 (N, C); rows sum to 1.

        Raises:
            InferenceError: the runtime refused the input or failed while running.
        """
        if not len(crops):
            return np.empty((0, len(self.labels)), np.float32)
        (logits,) = self._session.run(crops).values()
        return softmax(logits, self._temperature)

    def _bind(self, count: int) -> _Batch:
        crops = np.zeros((count, 1, *self._size), np.uint8)
        logits = np.zeros((count, len(self.labels)), self._output_dtype)
        return _Batch(crops, logits, bind(self._session, crops, {self._output_name: logits}))

    def _check_contract(self, manifest: Manifest) -> tuple[str, np.dtype[np.generic]]:
        """Return name and type of the network's only output, after checking shapes and labels."""
        remedy = "reinstall the model, or export it again with `fer-train export`"
        declared = self._session.input_shape
        wanted = manifest.input.shape
        if len(declared) != len(wanted) or any(
            isinstance(have, int) and have != want
            for have, want in zip(declared, wanted, strict=True)
        ):
            raise ModelContractError(
                f"model {manifest.name} takes {list(declared)}, its manifest says {list(wanted)}",
                remedy=remedy,
            )
        # A batch of two shows at once that the graph takes several faces.
        blank = np.zeros((2, 1, *self._size), np.dtype(manifest.input.dtype))
        try:
            outputs = self._session.run(blank)
        except InferenceError as error:
            raise ModelContractError(
                f"model {manifest.name} does not take {blank.dtype.name} {blank.shape}: {error}",
                remedy=remedy,
            ) from error
        shapes = [output.shape for output in outputs.values()]
        if shapes != [(2, len(self.labels))]:
            raise ModelContractError(
                f"model {manifest.name} puts out {shapes} for two crops, its manifest names "
                f"{len(self.labels)} labels",
                remedy=remedy,
            )
        ((name, logits),) = outputs.items()
        return name, logits.dtype


class _Batch(NamedTuple):
    """The network bound to arrays for one number of crops."""

    crops: NDArray[np.uint8]
    logits: NDArray[np.generic]
    run: Callable[[], None]


def softmax(logits: NDArray[np.generic], temperature: np.float32) -> Float32Array:
    """Return probabilities, float32 (N, C), from logits (N, C); no overflow for any finite one."""
    # The reductions straight from the ufuncs: the arrays' own methods go through Python first.
    highest = np.maximum.reduce(logits, axis=1, keepdims=True)
    powers: Float32Array = np.subtract(logits, highest, dtype=np.float32)
    powers /= temperature
    np.exp(powers, out=powers)
    powers /= np.add.reduce(powers, axis=1, keepdims=True)
    return powers
