"""Small sets in the published layouts, a trained run and its model, made once a session."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from fer_trainer.data.faceset import FaceSet, Split
from fer_trainer.labels import BASIC_7
from fer_trainer.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lightning_fabric import Fabric

    from fer_trainer.checkpoint import Checkpoint

PREFIX = {Split.TRAIN: "Training", Split.VALID: "PublicTest", Split.TEST: "PrivateTest"}


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def face(label: int, number: int) -> np.ndarray:
    """A picture whose class is a bright bar at its height; easy to learn, never twice the same."""
    generator = np.random.default_rng([label, number])
    image = generator.integers(20, 110, (48, 48), dtype=np.uint8)
    image[6 * label + 2 : 6 * label + 7] += 130
    return image


def make_faces(per_class: dict[Split, int], labels: tuple[str, ...] = BASIC_7) -> FaceSet:
    images, truth, split, names = [], [], [], []
    for part, count in per_class.items():
        for label in range(len(labels)):
            for number in range(count):
                images.append(face(label, 1000 * part + number))
                truth.append(label)
                split.append(part)
                names.append(f"{PREFIX[part]}_{label}{number:04}.jpg")
    targets = np.eye(len(labels), dtype=np.float32)[truth]
    return FaceSet(
        "tiny", labels, np.stack(images), targets, np.array(split, np.uint8), tuple(names), "0" * 64
    )


@pytest.fixture(scope="session")
def faces() -> FaceSet:
    return make_faces({Split.TRAIN: 10, Split.VALID: 5, Split.TEST: 4})


def encoded(image: np.ndarray, kind: str = "png") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def write_fer2013(folder: Path, faces: FaceSet) -> Path:
    """The layout of the usual image folders; lossless inside, so that pixels stay equal."""
    for image, target, split, name in zip(
        faces.images, faces.hard_labels, faces.split, faces.names, strict=True
    ):
        top = "train" if split == Split.TRAIN else "test"
        place = folder / top / faces.labels[target]
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(encoded(image))
    return folder


@pytest.fixture(scope="session")
def fer2013_folder(tmp_path_factory: pytest.TempPathFactory, faces: FaceSet) -> Path:
    return write_fer2013(tmp_path_factory.mktemp("data") / "fer2013", faces)


@pytest.fixture(scope="session")
def fer2013_archive(fer2013_folder: Path) -> Path:
    path = fer2013_folder.parent / "fer2013.tar.xz"
    with tarfile.open(path, "w:xz") as archive:
        archive.add(fer2013_folder, "fer2013")
    return path


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    changes = {
        "train.epochs": 2,
        "train.batch_size": 16,
        "optim.lr": 0.05,
        "optim.ema_decay": 0.5,
        "augment.rotation_deg": 5.0,
        "augment.flip": 0.0,
    }
    return load_recipe("tests-smoke").with_(changes)


@pytest.fixture(scope="session")
def fabric(recipe: Recipe) -> Fabric:
    from fer_trainer.fabric import launch

    return launch(recipe, accelerator="cpu", threads=1)


@dataclass(frozen=True)
class Run:
    folder: Path
    last: Checkpoint


@pytest.fixture(scope="session")
def run(
    tmp_path_factory: pytest.TempPathFactory, recipe: Recipe, faces: FaceSet, fabric: Fabric
) -> Run:
    from fer_trainer import loop

    folder = tmp_path_factory.mktemp("run")
    return Run(folder, loop.train(recipe, faces, folder, fabric))
