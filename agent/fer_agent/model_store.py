"""Manifests and where models live: what a model means travels with its files, never in code.

A model is a folder `<name>/` with `manifest.json` beside the files it names. Folders are looked up
in the configured store first, then among the models shipped with this package.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from fer_agent.errors import ModelContractError, ModelFileError

EMOTIONS = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise", "contempt")
"""The words on the wire. A manifest's labels are a selection of these, in its own output order."""

UNCERTAIN = "uncertain"
"""Published when the classifier abstains; `unknown` and `None` mean other things to consumers."""

SCHEMA_VERSION: Final = 1

_HASH_CHUNK_BYTES = 1 << 20
_TASKS = ("facial-emotion", "face-detection")

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ModelFile(_Part):
    """One file of a model."""

    path: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """File name inside the model's folder."""
    precision: Literal["fp32", "fp16", "int8"]
    sha256: Sha256
    bytes: Annotated[int, Field(gt=0)]
    validation_accuracy: Share | None = None
    """Of this very file on the validation split; `models build` compares precisions with it."""


class GoldenFile(_Part):
    """Golden inputs of a model, with what its FP32 file answers to them."""

    path: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """File name inside the model's folder."""
    sha256: Sha256
    bytes: Annotated[int, Field(gt=0)]


class ModelInput(_Part):
    """The input the graph takes; the batch axis comes first and is dynamic."""

    shape: tuple[Literal["N"], Literal[1], int, int]
    dtype: Literal["uint8"]
    layout: Literal["NCHW"]
    colour: Literal["gray"]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.shape[2], self.shape[3]


class Calibration(_Part):
    """How logits become probabilities, and below which the word is `uncertain`."""

    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    """Logits are divided by it before the softmax."""
    abstain_below: Share = 0.0
    """The classifier abstains when the likeliest class has a lower probability."""


class Answered(_Part):
    """What is left when the classifier abstains below its threshold."""

    coverage: Share
    """Share of the crops that get an answer."""
    accuracy: Share
    """Share of right answers among them."""


class Metrics(_Part):
    """What was measured, and under which protocol."""

    dataset: str
    split: str
    protocol: str
    n: Annotated[int, Field(gt=0)]
    accuracy: Share
    accuracy_interval: tuple[Share, Share] | None = None
    """95 % bootstrap interval."""
    macro_f1: Share
    per_class_f1: dict[str, Share]
    ece: Share
    """Expected calibration error over 15 bins, after the temperature."""
    answered: Answered | None = None


class Provenance(_Part):
    """Where the weights come from, so that anyone can make them again."""

    recipe: str
    seed: int
    commit: str
    data_sha256: str
    epochs: Annotated[int, Field(ge=0)]
    device: str
    created: str
    """Date and time in UTC, RFC 3339."""


class Manifest(_Part):
    """`manifest.json`: everything the agent knows of a model without opening its graph."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    task: Literal["facial-emotion"]
    files: Annotated[tuple[ModelFile, ...], Field(min_length=1)]
    golden: GoldenFile | None = None
    """What `fer_agent.golden` reads; older models have none."""
    input: ModelInput
    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    preprocessing: Literal["in-graph"]
    """The graph takes raw gray crops; scaling is part of it."""
    calibration: Calibration
    metrics: tuple[Metrics, ...] = ()
    parameters: Annotated[int, Field(gt=0)]
    macs: Annotated[int, Field(gt=0)]
    """Multiply-accumulates of one crop."""
    provenance: Provenance
    licence: str

    @model_validator(mode="after")
    def _labels_are_wire_words(self) -> Manifest:
        foreign = [label for label in self.labels if label not in EMOTIONS]
        if foreign:
            raise ValueError(f"labels {foreign} are not among {list(EMOTIONS)}")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels {list(self.labels)} name a class twice")
        return self

    def file(self, precision: str = "fp32") -> ModelFile:
        """Return the file of one precision.

        Raises:
            ModelContractError: the model has no file of that precision.
        """
        for entry in self.files:
            if entry.precision == precision:
                return entry
        have = ", ".join(entry.precision for entry in self.files)
        raise ModelContractError(
            f"model {self.name} has no {precision} file, only {have}",
            remedy="set `classifier.precision` to one it has",
        )


class DetectorManifest(_Part):
    """`manifest.json` of a face detector: one file, and where it comes from.

    How its outputs are read is the decoder's knowledge (`detector.yunet_decode`), not the file's.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    task: Literal["face-detection"]
    files: Annotated[tuple[ModelFile, ...], Field(min_length=1, max_length=1)]
    source: str = ""
    """Where the file was published first."""
    licence: str


AnyManifest = Annotated[Manifest | DetectorManifest, Field(discriminator="task")]
"""What a manifest of this schema may be; its `task` tells which."""

_ANY_MANIFEST: Final[TypeAdapter[Manifest | DetectorManifest]] = TypeAdapter(AnyManifest)


class StoredModel(_Part):
    """A model folder whose manifest was read."""

    folder: Path
    manifest: Manifest

    def verified_file(self, precision: str = "fp32") -> Path:
        """Return the path of one of the model's files after checking its size and hash.

        Raises:
            ModelContractError: the model has no file of that precision.
            ModelFileError: the file is missing or is not the one the manifest names.
        """
        entry = self.manifest.file(precision)
        path = self.folder / entry.path
        verify_file(path, sha256=entry.sha256, size_bytes=entry.bytes)
        return path

    def golden_file(self) -> Path | None:
        """Return the path of the golden inputs after checking size and hash; None without any.

        Raises:
            ModelFileError: the file is missing or is not the one the manifest names.
        """
        entry = self.manifest.golden
        if entry is None:
            return None
        path = self.folder / entry.path
        verify_file(path, sha256=entry.sha256, size_bytes=entry.bytes)
        return path


def shipped_folder() -> Path:
    """Return the folder of the models that come with this package.

    A checkout reads its own `models/`; an installed wheel carries them as `fer_agent/_shipped`.
    """
    package = Path(__file__).resolve().parent
    installed = package / "_shipped"
    if installed.is_dir():
        return installed
    return package.parent.parent / "models"


def default_store() -> Path:
    """Return the folder of downloaded models when the configuration names none.

    The service and root share `/var/lib/fer-agent/models`; anybody else has a store of their own
    under `$XDG_DATA_HOME`.
    """
    shared = Path("/var/lib/fer-agent")
    if os.geteuid() == 0 or os.access(shared, os.W_OK):
        return shared / "models"
    data_home = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(data_home) / "fer-agent" / "models"


def find(name: str, store: Path | None = None) -> StoredModel:
    """Find a model by name in the store, then among the shipped ones, and read its manifest.

    Raises:
        ModelFileError: no folder of that name has a manifest.
        ModelContractError: the manifest is not valid.
    """
    places = [folder for folder in (store, shipped_folder()) if folder is not None]
    for place in places:
        folder = place / name
        if (folder / "manifest.json").is_file():
            return StoredModel(folder=folder, manifest=read_manifest(folder / "manifest.json"))
    looked = " and ".join(str(place) for place in places)
    raise ModelFileError(
        f"no model named {name!r} in {looked}",
        remedy="set `classifier.model` to one of: " + (", ".join(names(store)) or "(none there)"),
    )


def names(store: Path | None = None) -> list[str]:
    """Return the names of all models in the store and among the shipped ones, sorted."""
    places = [folder for folder in (store, shipped_folder()) if folder is not None]
    found = {path for place in places for path in place.glob("*/manifest.json")}
    return sorted({path.parent.name for path in found if not _is_detector(path)})


def read_manifest(path: Path) -> Manifest:
    """Read and check the manifest of an emotion model.

    Raises:
        ModelFileError: the file cannot be read or is not JSON.
        ModelContractError: a field is missing, unknown or wrong, or it is a face detector's.
    """
    manifest = read_any_manifest(path)
    if isinstance(manifest, DetectorManifest):
        raise ModelContractError(
            f"{path}: {manifest.name} finds faces, it reads no emotions",
            remedy="name an emotion model; `fer-agent models list` shows them",
        )
    return manifest


def read_any_manifest(path: Path) -> Manifest | DetectorManifest:
    """Read and check a manifest, whichever network it describes.

    Raises:
        ModelFileError: the file cannot be read or is not JSON.
        ModelContractError: a field is missing, unknown or wrong.
    """
    remedy = "reinstall the model, or export it again with `fer-train export`"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}", remedy=remedy) from error
    except ValueError as error:
        raise ModelFileError(f"{path} is not JSON: {error}", remedy=remedy) from error
    return parse_manifest(content, where=str(path))


def parse_manifest(content: object, *, where: str) -> Manifest | DetectorManifest:
    """Check a manifest that was read already.

    Args:
        content: the JSON value.
        where: what messages call it.

    Raises:
        ModelContractError: a field is missing, unknown or wrong.
    """
    version = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ModelContractError(
            f"{where} has manifest version {version}, this agent reads up to {SCHEMA_VERSION}",
            remedy="upgrade fer-agent, or use an older model",
        )
    try:
        return _ANY_MANIFEST.validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(str(step) for step in first["loc"] if step not in _TASKS)
        raise ModelContractError(
            f"{where}: {path and path + ': '}{first['msg'].removeprefix('Value error, ')}",
            remedy="reinstall the model, or export it again with `fer-train export`",
        ) from error


def _is_detector(path: Path) -> bool:
    """Tell whether a manifest is a face detector's; one that cannot be read counts as a model."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("task") == "face-detection"


def verify_file(path: Path, *, sha256: str, size_bytes: int | None = None) -> None:
    """Check that a file is the one its manifest names.

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
    """Hash a file in pieces; returns 64 hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
