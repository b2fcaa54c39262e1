"""The folders of models, first in the configured store, then among those of this package.

A model is a folder `<name>/` with `manifest.json` and the files it names.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Final

from fer_agent.errors import ModelFileError
from fer_agent.models.manifest import (
    DetectorManifest,
    GoldenFile,
    Manifest,
    ModelFile,
    read_manifest,
)
from fer_agent.system.records import FrozenRecord

_HASH_CHUNK_BYTES: Final = 1 << 20


class StoredModel(FrozenRecord):
    """A model folder whose manifest was read."""

    folder: Path
    manifest: Manifest

    def verified_file(self, precision: str = "fp32") -> Path:
        """Return the path of one of the model's files after checking its size and hash.

        Raises:
            ModelContractError: the model has no file of that precision.
            ModelFileError: the file is missing or is not the one the manifest names.
        """
        return _verified(self.folder, self.manifest.file(precision))

    def golden_file(self) -> Path | None:
        """Return the path of the golden inputs after checking size and hash; None without any.

        Raises:
            ModelFileError: the file is missing or is not the one the manifest names.
        """
        entry = self.manifest.golden
        return None if entry is None else _verified(self.folder, entry)


def shipped_folder() -> Path:
    """Return the folder of the models that come with this package.

    That is `models/` in a checkout and `fer_agent/_shipped` in an installed wheel.
    """
    package = Path(__file__).resolve().parents[1]
    installed = package / "_shipped"
    if installed.is_dir():
        return installed
    return package.parent.parent / "models"


def read_model(folder: Path) -> StoredModel:
    """Read the manifest in a folder.

    Raises:
        ModelError: as `read_manifest`.
    """
    return StoredModel(folder=folder, manifest=read_manifest(folder / "manifest.json"))


def find_model(name: str, store: Path | None = None) -> StoredModel:
    """Find a model by name in the store, then among the shipped ones, and read its manifest.

    Raises:
        ModelFileError: no folder of that name has a manifest.
        ModelContractError: the manifest is not valid.
    """
    places = [folder for folder in (store, shipped_folder()) if folder is not None]
    for place in places:
        folder = place / name
        if (folder / "manifest.json").is_file():
            return read_model(folder)
    looked = " and ".join(str(place) for place in places)
    raise ModelFileError(
        f"no model named {name!r} in {looked}",
        remedy="set `classifier.model` to one of: "
        + (", ".join(model_names(store)) or "(none there)"),
    )


def model_names(store: Path | None = None) -> list[str]:
    """Return the names of all models in the store and among the shipped ones, sorted."""
    places = [folder for folder in (store, shipped_folder()) if folder is not None]
    found = {path for place in places for path in place.glob("*/manifest.json")}
    return sorted({path.parent.name for path in found if not _is_detector(path)})


def _is_detector(path: Path) -> bool:
    """Tell whether a manifest is a face detector's; one that cannot be read counts as a model."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("task") == "face-detection"


def verify_folder(folder: Path, manifest: Manifest | DetectorManifest) -> None:
    """Check that every file that a manifest names is in its folder.

    Raises:
        ModelFileError: one is missing, truncated, or of another hash.
    """
    for entry in manifest.all_files:
        _verified(folder, entry)


def _verified(folder: Path, entry: ModelFile | GoldenFile) -> Path:
    path = folder / entry.path
    verify_file(path, sha256=entry.sha256, size_bytes=entry.bytes)
    return path


def verify_file(path: Path, *, sha256: str, size_bytes: int | None = None) -> None:
    """Check that a file is the one in its manifest.

    Raises:
        ModelFileError: missing, truncated, or of another hash.
    """
    remedy = "reinstall the model, or fetch it again"
    try:
        have_bytes = path.stat().st_size
        if size_bytes is not None and have_bytes != size_bytes:
            raise ModelFileError(
                f"{path} has {have_bytes} bytes, its manifest says {size_bytes}", remedy=remedy
            )
        have = file_sha256(path)
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}", remedy=remedy) from error
    if have != sha256:
        raise ModelFileError(
            f"{path} has sha256 {have[:12]}…, expected {sha256[:12]}…", remedy=remedy
        )


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256 as 64 hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
