"""The YuNet face detector on any `InferenceSession`, with a second pass for huge faces."""

from __future__ import annotations

import numpy as np

from fer_agent.config.model import DetectorConfig
from fer_agent.detector.letterbox import Letterbox
from fer_agent.detector.yunet_decode import OUTPUT_WIDTHS, STRIDES, Decoder
from fer_agent.errors import InferenceError, ModelContractError
from fer_agent.vision.binding import bind
from fer_agent.vision.ports import InferenceSession
from fer_agent.vision.records import Faces, Frame

_SECOND_PASS_LONG_SIDE = 160
"""Long side of the second pass, a quarter of the default input's pixels."""

_SECOND_PASS_SCORE = 0.1
"""Least score on the coarsest level that causes a second pass.

A face much larger than the receptive field leaves weak traces there: of 137 faces 2.2 times as high
as the picture, one pass at 320 pixels finds 65 %, this rule 87 %, a second pass at every empty
frame 88 %. Of photos without a face, 12 % cause the second pass, so an empty scene costs 3 %
more and not 25 %. `benchmarks/detector.py` measures both.
"""

_PROBE_SIZE = (64, 96)
"""Height and width of the blank input that checks a model's outputs at construction."""


class YuNetDetector:
    """Face detector with YuNet; satisfies `FaceDetector`.

    It keeps input buffers, so one detector serves one pipeline; the session may be shared.

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
        self._long_sides = (config.long_side, min(_SECOND_PASS_LONG_SIDE, config.long_side // 2))
        self._frame_size = (0, 0)
        self._none = Faces.none((0, 0))
        self._passes: list[_Pass] = []

    def detect(self, frame: Frame) -> Faces:
        """Find the faces in one frame.

        Args:
            frame: any size; its colour picture is used, because on luma alone recall falls.

        Returns:
            Faces in frame pixels, best score first, with YuNet's five landmarks. N may be 0.
        """
        if frame.size != self._frame_size:
            self._frame_size = frame.size
            self._none = Faces.none(frame.size)
            self._passes = [_Pass(self._session, frame.size, side) for side in self._long_sides]
        first, second = self._passes
        faces = first.find(frame, self._config)
        if faces is None and first.decoder.trace() >= _SECOND_PASS_SCORE:
            faces = second.find(frame, self._config)
        return self._none if faces is None else faces


class _Pass:
    """The buffers and the decoder for one input size."""

    def __init__(
        self, session: InferenceSession, frame_size: tuple[int, int], long_side: int
    ) -> None:
        self._letterbox = Letterbox(frame_size, long_side)
        self.decoder = Decoder(*self._letterbox.input_size)
        self._run = bind(session, self._letterbox.tensor, self.decoder.outputs)

    def find(self, frame: Frame, config: DetectorConfig) -> Faces | None:
        """Return the faces in frame pixels, or None where there is none."""
        self._letterbox.fill(frame)
        self._run()
        found = self.decoder.decode(config.score, config.nms_iou)
        if found is None:
            return None
        to_frame = self._letterbox.to_frame
        return Faces(
            xyxy=to_frame(found.xyxy.reshape(-1, 2, 2)).reshape(-1, 4),
            score=found.score,
            landmarks=to_frame(found.landmarks),
            frame_size=frame.size,
        )


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
