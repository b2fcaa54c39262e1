"""From a staged, verified version to one that runs: the door to the activation room."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fer_agent.errors import InferenceError, ModelError, VerificationError
from fer_agent.models.manifest import DetectorManifest, read_any_manifest
from fer_agent.models.store import file_sha256, shipped_folder
from fer_agent.updates.activation import state
from fer_agent.updates.activation.change import configured
from fer_agent.updates.activation.journal import Build
from fer_agent.updates.activation.versions import Keep, Versions

if TYPE_CHECKING:
    from pathlib import Path

    from fer_agent.config.model import AgentConfig
    from fer_agent.updates.activation.change import Change
    from fer_agent.updates.catalog import Release


@dataclass(frozen=True, slots=True)
class Installed:
    """The version of a model that is in use here.

    Attributes:
        version: its number.
        manifest_sha256: hash of its manifest's file, which names all others.
        from_store: whether it was downloaded, and not shipped or laid there by hand.
    """

    version: str
    manifest_sha256: str
    from_store: bool


@dataclass(frozen=True, slots=True)
class Switch:
    """Puts verified versions to work in one store.

    Attributes:
        store: the model store's folder.
        change: brings in emotion models.
        keep: how many old versions of a detector stay.
    """

    store: Path
    change: Change
    keep: Keep

    @classmethod
    def of(cls, config: AgentConfig, store: Path) -> Switch:
        """Make it as the configuration says."""
        keep = Keep(versions=config.models.keep_versions, bytes=config.models.keep_bytes)
        return cls(store, configured(config), keep)

    def installed(self, name: str) -> Installed | None:
        """Return what is in use under a name; None for nothing, or nothing that can be read."""
        for place in (self.store, shipped_folder()):
            path = place / name / "manifest.json"
            try:
                manifest = read_any_manifest(path)
                digest = file_sha256(path)
            except (OSError, ModelError):
                continue
            linked = Versions(self.store, name).linked() is not None
            return Installed(manifest.version, digest, place == self.store and linked)
        return None

    def names(self) -> set[str]:
        """Return the names of which a downloaded version runs."""
        try:
            found = [path.name for path in self.store.iterdir() if path.is_symlink()]
        except OSError:
            return set()
        return {name for name in found if Versions(self.store, name).linked() is not None}

    def folder(self, release: Release) -> Path:
        """Return where a version lies in the store, whether or not it does."""
        return Versions(self.store, release.name).folder(_build(release).key)

    def refused_before(self, release: Release) -> str:
        """Return why a version was refused earlier; empty when it was not."""
        known = state.refusals(self.store).of(release.name, _build(release))
        return "" if known is None else known.reason

    def install(self, staged: Path, release: Release) -> None:
        """Keep a staged version in the store without switching to it.

        Raises:
            OSError: the store cannot be written.
        """
        Versions(self.store, release.name).adopt(staged, _build(release))

    def activate(self, staged: Path, release: Release) -> None:
        """Try a staged version and switch to it.

        Args:
            staged: its folder, all files verified; it is moved into the store.
            release: what it is.

        Raises:
            VerificationError: it does not pass its trial.
            TemporaryError: another activation is under way, or the disk is full.
            ConfigError: the store cannot be written, or a folder made by hand is in the way.
            OSError: the store cannot be written.
        """
        if not isinstance(release.manifest, DetectorManifest):
            self.change.activate_staged(staged, name=release.name)
            return
        versions = Versions(self.store, release.name)
        versions.refuse_folder_by_hand()
        _try_detector(staged / release.manifest.files[0].path)
        build = _build(release)
        versions.adopt(staged, build)
        versions.point(build.key)
        versions.prune(self.keep, {build.key})


def _build(release: Release) -> Build:
    return Build(version=release.version, manifest_sha256=release.manifest_sha256)


def _try_detector(path: Path) -> None:
    """Load a face detector and look at a blank picture with it.

    A graph that takes the process down takes down this command, and nothing was switched.
    """
    from fer_agent.config.model import DetectorConfig  # noqa: PLC0415 - with the runtime, only here
    from fer_agent.detector.yunet import YuNetDetector  # noqa: PLC0415
    from fer_agent.inference.onnx import OnnxSession  # noqa: PLC0415

    try:
        YuNetDetector(OnnxSession(path, threads=1), DetectorConfig())
    except (ModelError, InferenceError) as error:
        raise VerificationError(
            f"the new face detector does not work here: {error}",
            remedy="publish a better version; the one in use stays",
        ) from error
