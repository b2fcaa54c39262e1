"""The versions that a repository of models offers, and the choice among them; does no I/O.

A repository is a folder on a web server with `metadata/` and `targets/`. Each file of a model is a
target `<name>/<version>/<file>`; its signed `custom` field is a `TargetCustom`. A version is its
manifest's target and the files that the manifest names; a retired one is no longer a target.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from fer_agent.errors import ModelContractError, VerificationError
from fer_agent.models.manifest import (
    SCHEMA_VERSION,
    DetectorManifest,
    Manifest,
    ModelFile,
    by_number,
    parse_manifest,
)
from fer_agent.system.records import FrozenRecord

METADATA_FOLDER: Final = "metadata"
"""Below the repository's address: `timestamp.json`, `1.root.json`, ..."""

TARGETS_FOLDER: Final = "targets"
"""Below the repository's address: `<name>/<version>/<sha256>.<file>`."""

MANIFEST_FILE: Final = "manifest.json"

CUSTOM_SCHEMA_VERSION: Final = 1

ModelKind = Literal["emotion-model", "face-detector"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=64)]
Version = Annotated[str, Field(pattern=r"^\d{1,6}\.\d{1,6}\.\d{1,6}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]

_PATH: Final = re.compile(
    r"([a-z0-9][a-z0-9-]*)/(\d{1,6}\.\d{1,6}\.\d{1,6})/([A-Za-z0-9][A-Za-z0-9._-]*)"
)
"""Name, version and file of a target."""


class TargetCustom(FrozenRecord, extra="ignore"):
    """The signed `custom` field of one target."""

    # Newer agents may add fields; a change that old ones must not overlook raises the version.

    schema_version: Literal[1] = CUSTOM_SCHEMA_VERSION
    kind: ModelKind
    name: Name
    version: Version
    file: FileName
    """The file's name in the model's folder."""
    precision: Literal["fp32", "fp16", "int8"] | None = None
    minimum_agent_version: Version
    """The oldest agent that can run this version of the model."""
    manifest: str | None = None
    """On the manifest's target only: its content, as text because metadata is signed over
    canonical JSON, which refuses fractions."""

    @property
    def target_path(self) -> str:
        """The target's path in the repository."""
        return f"{self.name}/{self.version}/{self.file}"

    def as_json(self) -> dict[str, Any]:
        """Return the object that goes into the metadata."""
        return self.model_dump(exclude_none=True)


@dataclass(frozen=True, slots=True)
class ListedTarget:
    """One target as the verified metadata lists it.

    Attributes:
        path: its path in the repository.
        sha256: 64 hexadecimal digits.
        size_bytes: its exact size.
        custom: the raw `custom` field; None without one.
    """

    path: str
    sha256: str
    size_bytes: int
    custom: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class CatalogRelease:
    """One version of a model that this agent can run, with all its files.

    Attributes:
        manifest: its manifest.
        minimum_agent_version: the oldest agent that may take it.
        files: the targets it consists of by their names in the folder, the manifest among them.
    """

    manifest: Manifest | DetectorManifest
    minimum_agent_version: str
    files: Mapping[str, ListedTarget]

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """The model's version."""
        return self.manifest.version

    @property
    def size_bytes(self) -> int:
        """The size of all files together."""
        return sum(file.size_bytes for file in self.files.values())

    @property
    def manifest_sha256(self) -> str:
        """Hash of the manifest's file, which names the hashes of all others."""
        return self.files[MANIFEST_FILE].sha256


@dataclass(frozen=True, slots=True)
class TooNew:
    """A version that only a newer agent can run.

    Attributes:
        name: the model's name.
        version: the model's version.
        needs: the oldest agent version that can; empty when the repository's own format is newer
            than this agent and does not say.
    """

    name: str
    version: str
    needs: str

    def __str__(self) -> str:
        """Return it as part of a sentence."""
        needs = f"fer-agent {self.needs}" if self.needs else "a newer fer-agent"
        return f"{self.name} {self.version} needs {needs} or later"


@dataclass(frozen=True, slots=True)
class ReleaseChoice:
    """The versions that a repository has for one model name.

    Attributes:
        newest: the newest version that this agent can run; None without one.
        too_new: a still newer one that it cannot run; None without one.
    """

    newest: CatalogRelease | None
    too_new: TooNew | None


class Catalog:
    """All versions of all models in a repository.

    Args:
        targets: everything that the verified targets metadata lists; paths that are no model's
            file are left out.
    """

    def __init__(self, targets: Iterable[ListedTarget]) -> None:
        self._by_version: dict[str, dict[str, dict[str, ListedTarget]]] = {}
        for target in targets:
            if place := _PATH.fullmatch(target.path):
                name, version, file = place.groups()
                files = self._by_version.setdefault(name, {}).setdefault(version, {})
                files[file] = target

    def names(self) -> list[str]:
        """Return the names of all models with a version, sorted."""
        return sorted(
            name
            for name, versions in self._by_version.items()
            if any(MANIFEST_FILE in files for files in versions.values())
        )

    def versions(self, name: str) -> list[str]:
        """Return a model's versions, the newest first."""
        found = self._by_version.get(name, {})
        whole = [version for version, files in found.items() if MANIFEST_FILE in files]
        return sorted(whole, key=by_number, reverse=True)

    def choose(self, name: str, agent_version: str) -> ReleaseChoice:
        """Choose the version of a model that an agent takes: the newest that it can run.

        Args:
            name: the model's name.
            agent_version: the agent's own version, such as 0.1.0.

        Raises:
            VerificationError: the signed entries of the newest version contradict each other.
        """
        too_new: TooNew | None = None
        for version in self.versions(name):
            found = self._read(name, version, agent_version)
            if isinstance(found, CatalogRelease):
                return ReleaseChoice(found, too_new)
            too_new = too_new or found
        return ReleaseChoice(None, too_new)

    def _read(self, name: str, version: str, agent_version: str) -> CatalogRelease | TooNew:
        files = self._by_version[name][version]
        target = files[MANIFEST_FILE]
        raw = target.custom or {}
        needs = raw.get("minimum_agent_version", "")
        # First of all: the entry of a version for newer agents may be in a newer form.
        if _is_version(needs) and by_number(needs) > by_number(agent_version):
            return TooNew(name, version, needs)
        schema = raw.get("schema_version")
        if isinstance(schema, int) and schema > CUSTOM_SCHEMA_VERSION:
            return TooNew(name, version, "")
        if _manifest_schema(raw.get("manifest")) > SCHEMA_VERSION:
            return TooNew(name, version, "")
        custom = _custom(target)
        manifest = _manifest(target, custom)
        parts = [entry.path for entry in manifest.all_files]
        missing = sorted(set(parts) - files.keys())
        if missing:
            raise _contradiction(target, f"names {', '.join(missing)}, which is not published")
        chosen = {file: files[file] for file in (MANIFEST_FILE, *parts)}
        _check_hashes(manifest, chosen)
        return CatalogRelease(manifest, custom.minimum_agent_version, chosen)


def kind_of(manifest: Manifest | DetectorManifest) -> ModelKind:
    """Return the purpose of a network by its manifest."""
    return "face-detector" if isinstance(manifest, DetectorManifest) else "emotion-model"


def customs_of(
    manifest: Manifest | DetectorManifest, content: dict[str, Any], *, minimum_agent_version: str
) -> dict[str, TargetCustom]:
    """Describe every target of a version that is to be published.

    Args:
        manifest: the version's manifest.
        content: the same as the JSON object in its file.
        minimum_agent_version: the oldest agent that can run it.

    Returns:
        By file name in the model's folder: the manifest first, then the files that it names.
    """

    def custom(file: str, **more: Any) -> TargetCustom:
        return TargetCustom(
            kind=kind_of(manifest),
            name=manifest.name,
            version=manifest.version,
            file=file,
            minimum_agent_version=minimum_agent_version,
            **more,
        )

    found = {MANIFEST_FILE: custom(MANIFEST_FILE, manifest=json.dumps(content))}
    for entry in manifest.all_files:
        precision = entry.precision if isinstance(entry, ModelFile) else None
        found[entry.path] = custom(entry.path, precision=precision)
    return found


def _is_version(text: object) -> bool:
    return isinstance(text, str) and bool(re.fullmatch(r"\d{1,6}\.\d{1,6}\.\d{1,6}", text))


def _manifest_schema(text: object) -> int:
    """Return the schema version of a manifest's text; 0 when it cannot be read."""
    try:
        content = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return 0
    schema = content.get("schema_version") if isinstance(content, dict) else None
    return schema if isinstance(schema, int) else 0


def _custom(target: ListedTarget) -> TargetCustom:
    try:
        custom = TargetCustom.model_validate(target.custom)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "custom"
        raise _contradiction(target, f"has a wrong {where}: {first['msg']}") from error
    if custom.target_path != target.path:
        raise _contradiction(target, f"says that it is {custom.target_path}")
    return custom


def _manifest(target: ListedTarget, custom: TargetCustom) -> Manifest | DetectorManifest:
    try:
        content = json.loads(custom.manifest or "")
    except ValueError as error:
        raise _contradiction(target, "has a manifest that is not JSON") from error
    try:
        manifest = parse_manifest(content, where=target.path)
    except ModelContractError as error:
        raise VerificationError(str(error), remedy=error.remedy) from error
    if (manifest.name, manifest.version) != (custom.name, custom.version):
        raise _contradiction(target, f"holds {manifest.name} {manifest.version}")
    if kind_of(manifest) != custom.kind:
        raise _contradiction(target, f"calls itself {custom.kind}, which its manifest is not")
    return manifest


def _check_hashes(manifest: Manifest | DetectorManifest, files: Mapping[str, ListedTarget]) -> None:
    for entry in manifest.all_files:
        target = files[entry.path]
        if (target.sha256, target.size_bytes) != (entry.sha256, entry.bytes):
            raise _contradiction(target, "is another file than its manifest names")


def _contradiction(target: ListedTarget, what: str) -> VerificationError:
    return VerificationError(
        f"the repository's entry {target.path} {what}",
        remedy="tell whoever publishes the models; what runs here stays as it is",
    )
