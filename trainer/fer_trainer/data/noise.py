"""Class folders of noise, for trials without a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from fer_trainer.data import cache
from fer_trainer.data.faceset import SIZE_PX
from fer_trainer.labels import BASIC_7

if TYPE_CHECKING:
    from pathlib import Path

NAME = "noise"
"""Name in reports."""

_PER_CLASS = {"train": 8, "valid": 4, "test": 4}


def noise_folder() -> Path:
    """Write the folder `<split>/<class>/<n>.png` into the cache; what is there stays.

    Every class has its own brightness, so that there is something to learn.
    """
    root = cache.folder() / "noise"
    generator = np.random.default_rng(0)
    for split, count in _PER_CLASS.items():
        for number, label in enumerate(BASIC_7):
            place = root / split / label
            place.mkdir(parents=True, exist_ok=True)
            for image in range(count):
                noise = generator.normal(40 + 28 * number, 20, (SIZE_PX, SIZE_PX))
                file = place / f"{image}.png"
                if not file.exists():
                    cv2.imwrite(str(file), noise.clip(0, 255).astype(np.uint8))
    return root
