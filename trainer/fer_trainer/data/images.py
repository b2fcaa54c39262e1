"""Decoders from encoded pictures to 48x48 gray arrays."""

from __future__ import annotations

import cv2
import numpy as np

from fer_trainer.data.faceset import SIZE_PX, UInt8Array
from fer_trainer.errors import DataError


def decode_exact(encoded: bytes, name: str) -> UInt8Array:
    """Decode a picture that must already be 48x48 and gray.

    Raises:
        DataError: the picture is corrupt, of another size, or coloured.
    """
    image = _decode(encoded, name)
    if image.ndim == 3 and not _is_gray(image):
        raise DataError(
            f"{name} is a colour image, but this source holds gray ones",
            remedy="convert it, or read the folder as the source `folders`, which converts",
        )
    gray = image if image.ndim == 2 else np.ascontiguousarray(image[:, :, 0])
    if gray.shape != (SIZE_PX, SIZE_PX):
        raise DataError(
            f"{name} is {gray.shape[1]}x{gray.shape[0]} pixels, not {SIZE_PX}x{SIZE_PX}",
            remedy="resize it, or read the folder as the source `folders`, which resizes",
        )
    return gray


def decode_resized(
    encoded: bytes, name: str, part: tuple[slice, slice] = (slice(None), slice(None))
) -> UInt8Array:
    """Decode any picture of a face, take its luma and scale it to 48x48.

    Args:
        encoded: the file's bytes.
        name: for messages.
        part: rows and columns to keep.

    Raises:
        DataError: the picture is corrupt, or the part is outside it.
    """
    image = _decode(encoded, name)[part]
    if not image.size:
        raise DataError(f"the face box lies outside {name}", remedy="remove the row")
    if image.ndim == 3:
        code = cv2.COLOR_BGRA2GRAY if image.shape[2] == 4 else cv2.COLOR_BGR2GRAY
        image = np.asarray(cv2.cvtColor(image, code), np.uint8)
    if image.shape == (SIZE_PX, SIZE_PX):
        return image
    shrinks = min(image.shape) > SIZE_PX
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (SIZE_PX, SIZE_PX), interpolation=method), np.uint8)


def _decode(encoded: bytes, name: str) -> UInt8Array:
    image = None
    if encoded:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint8:
        raise DataError(
            f"{name} is not a readable 8-bit image", remedy="replace the file, or leave it out"
        )
    return np.asarray(image, np.uint8)


def _is_gray(image: UInt8Array) -> bool:
    first = image[:, :, 0]
    return image.shape[2] >= 3 and all(
        np.array_equal(first, image[:, :, channel]) for channel in (1, 2)
    )
