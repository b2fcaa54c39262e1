"""The switch of a store from one version of a model or detector to another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fer_agent.config.model import AgentConfig
from fer_agent.errors import InferenceError, ModelError, VerificationError
from fer_agent.models.manifest import DetectorManifest
from fer_agent.updates.activation import state
from fer_agent.updates.activation.change import ModelChange, configured
from fer_agent.updates.activation.journal import ModelVersion
from fer_agent.updates.activation.versions import Versions
from fer_agent.updates.catalog import CatalogRelease


@dataclass(frozen=True, slots=True)
class Switch:
    """Switches one store to verified versions.

    Attributes:
        store: the model store's folder.
        change: brings in emotion models.
    """

    store: Path
    change: ModelChange

    @classmethod
    def of(cls, config: AgentConfig, store: Path) -> Switch:
        """Make it as the configuration says."""
        return cls(store, configured(config))

    def downloaded(self, name: str) -> bool:
        """Return whether the version in use under a name came from a repository."""
        return Versions(self.store, name).current() is not None

    def names(self) -> set[str]:
        """Return the names of the models whose downloaded version runs."""
        try:
            found = [path.name for path in self.store.iterdir() if path.is_symlink()]
        except OSError:
            return set()
        return {name for name in found if Versions(self.store, name).linked() is not None}

    def folder(self, release: CatalogRelease) -> Path:
        """Return the folder of a version in the store, whether or not it is there."""
        return Versions(self.store, release.name).folder(_version(release).key)

    def rejected_before(self, release: CatalogRelease) -> str:
        """Return the reason why a version was rejected earlier; empty when it was not."""
        known = state.rejected(self.store).of(release.name, _version(release))
        return "" if known is None else known.reason

    def install(self, staged: Path, release: CatalogRelease) -> None:
        """Keep a staged version in the store without switching to it.

        Raises:
            OSError: the store cannot be written.
        """
        Versions(self.store, release.name).adopt(staged, _version(release))

    def activate(self, staged: Path, release: CatalogRelease) -> None:
        """Test a staged version and switch to it.

        Args:
            staged: its folder, all files verified; it is moved into the store.
            release: the version.

        Raises:
            VerificationError: it does not pass its self-test.
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
        version = _version(release)
        versions.adopt(staged, version)
        versions.point(version.key)
        versions.prune(self.change.keep, {version.key})


def _version(release: CatalogRelease) -> ModelVersion:
    return ModelVersion(version=release.version, manifest_sha256=release.manifest_sha256)


def _try_detector(path: Path) -> None:
    """Load a face detector and run it on a blank picture.

    A graph that crashes takes down this command before anything was switched.
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
