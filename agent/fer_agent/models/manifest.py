"""The manifest of a model, with all facts about a network beside its graph."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from fer_agent.errors import ModelContractError, ModelFileError
from fer_agent.models.emotions import EMOTIONS
from fer_agent.system.records import FrozenRecord

SCHEMA_VERSION: Final = 1

_TASKS = ("facial-emotion", "face-detection")

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ModelFile(FrozenRecord):
    """One file of a model."""

    path: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """File name inside the model's folder."""
    precision: Literal["fp32", "fp16", "int8"]
    sha256: Sha256
    bytes: Annotated[int, Field(gt=0)]
    validation_accuracy: Share | None = None
    """Of this very file on the validation split; `models build` compares precisions with it."""


class GoldenFile(FrozenRecord):
    """Golden inputs of a model, with the outputs of its FP32 file."""

    path: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """File name inside the model's folder."""
    sha256: Sha256
    bytes: Annotated[int, Field(gt=0)]


class ModelInput(FrozenRecord):
    """The input the graph takes; the batch axis comes first and is dynamic."""

    shape: tuple[Literal["N"], Literal[1], int, int]
    dtype: Literal["uint8"]
    layout: Literal["NCHW"]
    colour: Literal["gray"]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.shape[2], self.shape[3]


class Calibration(FrozenRecord):
    """The temperature of the probabilities, and the threshold of `uncertain`."""

    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    """Logits are divided by it before the softmax."""
    abstain_below: Share = 0.0
    """The classifier abstains when the likeliest class has a lower probability."""


class Answered(FrozenRecord):
    """The figures of the crops on which the classifier does not abstain."""

    coverage: Share
    """Share of these crops among all."""
    accuracy: Share
    """Share of right answers among these crops."""


class Metrics(FrozenRecord):
    """A measurement, with its protocol."""

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


class Provenance(FrozenRecord):
    """The origin of the weights, for making them again."""

    recipe: str
    seed: int
    commit: str
    data_sha256: str
    epochs: Annotated[int, Field(ge=0)]
    device: str
    created: str
    """Date and time in UTC, RFC 3339."""


class Manifest(FrozenRecord):
    """`manifest.json` of an emotion model."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    task: Literal["facial-emotion"]
    files: Annotated[tuple[ModelFile, ...], Field(min_length=1)]
    golden: GoldenFile | None = None
    """Read by `fer_agent.inference.golden`; older models have none."""
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

    @property
    def all_files(self) -> tuple[ModelFile | GoldenFile, ...]:
        """Every file beside the manifest, the golden inputs included."""
        return self.files if self.golden is None else (*self.files, self.golden)

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


class DetectorManifest(FrozenRecord):
    """`manifest.json` of a face detector: one file and its origin."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    task: Literal["face-detection"]
    files: Annotated[tuple[ModelFile, ...], Field(min_length=1, max_length=1)]
    source: str = ""
    """Address of the file's first publication."""
    licence: str

    @property
    def all_files(self) -> tuple[ModelFile | GoldenFile, ...]:
        """Every file beside the manifest."""
        return self.files


AnyManifest = Annotated[Manifest | DetectorManifest, Field(discriminator="task")]
"""A manifest of this schema; its `task` selects the kind."""

_ANY_MANIFEST: Final[TypeAdapter[Manifest | DetectorManifest]] = TypeAdapter(AnyManifest)


def by_number(version: str) -> tuple[int, int, int]:
    """Return a sort key by the numbers of a version or of a string that begins with one.

    Raises:
        ValueError: it does not begin with three numbers.
    """
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if found is None:
        raise ValueError(f"{version!r} is no version x.y.z")
    return int(found[1]), int(found[2]), int(found[3])


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
    """Read and check a manifest of either kind.

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
        where: its name in messages.

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
