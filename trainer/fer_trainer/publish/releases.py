"""Check of a model's folder before it is signed, as devices will check it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError
from tuf.api.metadata import TargetFile

from fer_agent.errors import ModelContractError, ModelFileError, UsageError
from fer_agent.inference import golden
from fer_agent.inference.onnx import OnnxSession
from fer_agent.models.manifest import Manifest, by_number, read_any_manifest
from fer_agent.models.store import file_sha256, verify_file
from fer_agent.updates.catalog import MANIFEST_FILE, TargetCustom, customs_of

if TYPE_CHECKING:
    from pathlib import Path

    from fer_agent.models.manifest import DetectorManifest

FIRST_AGENT: Final = "0.1.0"
"""The first agent that reads version 1 of manifests and of targets' custom fields."""


@dataclass(frozen=True, slots=True)
class Content:
    """A target and the file that holds it.

    Attributes:
        target: what is signed of it.
        source: where its content is now.
    """

    target: TargetFile
    source: Path


@dataclass(frozen=True, slots=True)
class CheckedRelease:
    """A version of a model that is fit to be published.

    Attributes:
        name: the model's name.
        version: its version, x.y.z.
        contents: its manifest and the files that it names.
    """

    name: str
    version: str
    contents: tuple[Content, ...]


def check(folder: Path, *, minimum_agent_version: str = FIRST_AGENT) -> CheckedRelease:
    """Verify a model's folder: its manifest, every file's hash, its answers to golden inputs.

    Args:
        folder: an emotion model's or the face detector's, with its manifest.
        minimum_agent_version: the oldest agent that can run it.

    Raises:
        UsageError: the agent's version is no x.y.z.
        ModelFileError: the manifest or a file is missing, or another one than the manifest names.
        ModelContractError: the manifest is wrong, the model has no golden inputs or answers
            otherwise.
    """
    _check_version(minimum_agent_version)
    manifest = read_any_manifest(folder / MANIFEST_FILE)
    for entry in manifest.files:
        verify_file(folder / entry.path, sha256=entry.sha256, size_bytes=entry.bytes)
    _run(folder, manifest)
    content = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    try:
        customs = customs_of(manifest, content, minimum_agent_version=minimum_agent_version)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ModelContractError(
            f"{folder} cannot be published: {first['loc'][-1]}: {first['msg']}",
            remedy="export the model under another name or version",
        ) from error
    contents = tuple(_content(folder / file, custom) for file, custom in customs.items())
    return CheckedRelease(manifest.name, manifest.version, contents)


def _run(folder: Path, manifest: Manifest | DetectorManifest) -> None:
    """Load every file; an emotion model's must answer its golden inputs within tolerance."""
    if not isinstance(manifest, Manifest):
        for entry in manifest.files:
            OnnxSession(folder / entry.path)
        return
    if manifest.golden is None:
        raise ModelContractError(
            f"{folder} has no golden inputs, with which devices prove a model before they use it",
            remedy="export it again with `fer-train export`, which writes them",
        )
    path = folder / manifest.golden.path
    verify_file(path, sha256=manifest.golden.sha256, size_bytes=manifest.golden.bytes)
    expected = golden.load(path)
    for entry in manifest.files:
        try:
            golden.check(
                OnnxSession(folder / entry.path), expected, golden.TOLERANCES[entry.precision]
            )
        except golden.DisagreementError as error:
            raise ModelContractError(
                f"{folder / entry.path}: {error}",
                remedy="no device would take it: export and quantize the model again",
            ) from error


def _content(path: Path, custom: TargetCustom) -> Content:
    try:
        target = TargetFile(
            path.stat().st_size,
            {"sha256": file_sha256(path)},
            custom.target_path,
            {"custom": custom.as_json()},
        )
    except OSError as error:
        raise ModelFileError(
            f"cannot read {path}: {error.strerror}", remedy="bring the file back and try again"
        ) from error
    return Content(target, path)


def _check_version(text: str) -> None:
    try:
        by_number(text)
    except ValueError as error:
        raise UsageError(
            f"--minimum-agent-version {text!r} is no version",
            remedy=f"write it as three numbers, such as {FIRST_AGENT}",
        ) from error
