"""YuNet on any `InferenceSession`: scale and pad, run, decode; small faces and huge ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from fer_agent.detector.letterbox import Letterbox
from fer_agent.detector.yunet_decode import OUTPUT_WIDTHS, STRIDES, Decoder, suppress
from fer_agent.errors import InferenceError, ModelContractError
from fer_agent.records import Faces

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fer_agent.config import DetectorConfig
    from fer_agent.ports import InferenceSession
    from fer_agent.records import Float32Array, Frame

_SECOND_LOOK_LONG_SIDE = 160
"""Long side of the second look, a quarter of the default input's pixels."""

_SECOND_LOOK_SCORE = 0.1
"""Least score on the coarsest level that asks for a second look.

A face much larger than the receptive field leaves weak traces there: of 137 faces 2.2 times as high
as the picture, one look at 320 pixels finds 65 %, this rule 87 %, a second look at every empty
frame 88 %. Of photos without a face, 12 % ask for the second look, so an empty scene costs 3 %
more and not 25 %. `benchmarks/detector.py` measures both.
"""

_PROBE_SIZE = (64, 96)
"""Height and width of the blank input that shows at construction what a model puts out."""


class YuNetDetector:
    """Finds faces with YuNet; satisfies `FaceDetector`.

    Keeps input buffers, so one detector serves one pipeline; the session may be shared.

    Args:
        session: YuNet's dynamic graph, input float32 (1, 3, H, W), BGR in 0 to 255.
        config: input size and thresholds.

    Raises:
        ModelContractError: input or outputs are not YuNet's.
    """

    def __init__(self, session: InferenceSession, config: DetectorConfig) -> None:
        _check_contract(session)
        self._session = session
        self._config = config
        self._long_sides = (config.long_side, min(_SECOND_LOOK_LONG_SIDE, config.long_side // 2))
        self._frame_size = (0, 0)
        self._looks: list[_Look] = []

    def detect(self, frame: Frame) -> Faces:
        """Find the faces in one frame.

        Args:
            frame: any size; its colour picture is asked for, because on luma alone recall falls.

        Returns:
            Faces in frame pixels, best score first, with YuNet's five landmarks. N may be 0.

        Raises:
            InferenceError: the runtime refused the input or failed while running.
        """
        if frame.size != self._frame_size:
            self._frame_size = frame.size
            self._looks = [_Look(frame.size, side) for side in self._long_sides]
        first, second = self._looks
        faces, trace = self._look(frame, first)
        if not len(faces) and trace >= _SECOND_LOOK_SCORE:
            faces, _ = self._look(frame, second)
        return faces

    def _look(self, frame: Frame, look: _Look) -> tuple[Faces, float]:
        """Return the faces at one input size, and the coarsest level's best score."""
        tensor = look.letterbox.fill(frame)
        outputs = cast("Mapping[str, Float32Array]", self._session.run(tensor))
        found, trace = look.decoder.decode(outputs, self._config.score)
        if found is None:
            return Faces.none(frame.size), trace
        kept = suppress(found.xyxy, found.score, self._config.nms_iou)
        to_frame = look.letterbox.to_frame
        faces = Faces(
            xyxy=to_frame(found.xyxy[kept].reshape(-1, 2, 2)).reshape(-1, 4),
            score=found.score[kept],
            landmarks=to_frame(found.landmarks[kept]),
            frame_size=frame.size,
        )
        return faces, trace


class _Look:
    """What one input size needs."""

    def __init__(self, frame_size: tuple[int, int], long_side: int) -> None:
        self.letterbox = Letterbox(frame_size, long_side)
        self.decoder = Decoder(*self.letterbox.input_size)


def _check_contract(session: InferenceSession) -> None:
    remedy = "use yunet_s_dynamic.onnx, or leave `detector.model_file` out to have it fetched"
    shape = session.input_shape
    if len(shape) != 4 or shape[1] != 3 or isinstance(shape[2], int) or isinstance(shape[3], int):
        raise ModelContractError(
            f"the face detector's input is {list(shape)}, not [N, 3, any height, any width]",
            remedy=remedy,
        )
    height, width = _PROBE_SIZE
    try:
        outputs = session.run(np.zeros((1, 3, height, width), np.float32))
    except InferenceError as error:
        raise ModelContractError(
            f"the face detector does not take a picture: {error}", remedy=remedy
        ) from error
    for stride in STRIDES:
        cells = (height // stride) * (width // stride)
        for key, values in OUTPUT_WIDTHS.items():
            output = outputs.get(f"{key}_{stride}")
            if output is None or output.shape != (1, cells, values) or output.dtype != np.float32:
                have = "missing" if output is None else f"{output.dtype.name} {output.shape}"
                raise ModelContractError(
                    f"the face detector's output {key}_{stride} is {have}, "
                    f"not float32 {(1, cells, values)}",
                    remedy=remedy,
                )
