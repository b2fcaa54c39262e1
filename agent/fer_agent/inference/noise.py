"""Noise as the input of a network without golden inputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fer_agent.errors import ModelContractError

_SEED = 0


def make_input(
    path: Path, dtype: np.dtype[np.generic], shape: Sequence[int | str | None]
) -> NDArray[np.generic]:
    """Make one input of noise, the same each time; an open first axis is the batch.

    Raises:
        ModelContractError: another axis is open, and its length is not given.
    """
    lengths = [1 if axis == 0 and not isinstance(n, int) else n for axis, n in enumerate(shape)]
    fixed = [length for length in lengths if isinstance(length, int) and length > 0]
    if len(fixed) < len(lengths):
        raise ModelContractError(
            f"{path.name} takes {list(shape)}, whose size is left open",
            remedy="name the shape to measure with --input-shape, such as 1,3,224,224",
        )
    noise = np.random.default_rng(_SEED).integers(0, 256, fixed)
    if np.issubdtype(dtype, np.integer) and dtype.itemsize == 1:
        return noise.astype(np.uint8).view(dtype)
    return noise.astype(dtype)
