"""The content of `fer-agent models list` and `verify`: the versions here and their state."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from fer_agent.errors import ModelError, UsageError
from fer_agent.models.manifest import DetectorManifest, Manifest, read_any_manifest
from fer_agent.models.store import shipped_folder, verify_folder
from fer_agent.updates import report
from fer_agent.updates.activation import state
from fer_agent.updates.activation.versions import Versions
from fer_agent.updates.catalog import kind_of


@dataclass(frozen=True, slots=True)
class InventoryRow:
    """One model name.

    Attributes:
        name: the name.
        kind: emotion-model, face-detector, or unreadable.
        current: the version that runs.
        stored: the versions that were downloaded, the newest first.
        shipped: the version that came with the agent; None without one.
        available: the newest version in the repository at the last sync; None when not known.
        refused: rejected versions.
    """

    name: str
    kind: str
    current: str | None
    stored: tuple[str, ...]
    shipped: str | None
    available: str | None
    refused: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """One folder that was checked.

    Attributes:
        name: the model's name.
        version: its version; the folder's name when the manifest cannot be read.
        folder: its place.
        problem: the fault; empty when it is whole.
        remedy: a sentence on how to fix it.
    """

    name: str
    version: str
    folder: Path
    problem: str = ""
    remedy: str = ""


def rows(store: Path) -> list[InventoryRow]:
    """Return a row for every model name in the store and among the shipped ones."""
    last = report.read(store)
    available = {} if last is None else {each.name: each.available for each in last.models}
    refused = state.rejected(store).refused
    found = []
    for name in _names(store):
        versions = Versions(store, name)
        shipped = _manifest(shipped_folder() / name)
        current = _manifest(store / name) or shipped
        found.append(
            InventoryRow(
                name=name,
                kind="unreadable" if current is None else kind_of(current),
                current=None if current is None else current.version,
                stored=tuple(key.partition("-")[0] for key in versions.installed()),
                shipped=None if shipped is None else shipped.version,
                available=available.get(name),
                refused=tuple(each.build.version for each in refused if each.name == name),
            )
        )
    return found


def verify(store: Path, names: Collection[str]) -> list[Checked]:
    """Check folders of models against their manifests, whether or not they run.

    Args:
        store: the model store's folder.
        names: of the models; empty for all.

    Raises:
        UsageError: there is no model of a name.
    """
    known = _names(store)
    if unknown := sorted(set(names) - set(known)):
        raise UsageError(
            f"no model named {', '.join(unknown)} in {store}",
            remedy="there are: " + (", ".join(known) or "none"),
        )
    checked = []
    for name in known:
        if names and name not in names:
            continue
        versions = Versions(store, name)
        folders = [versions.folder(key) for key in versions.installed()]
        if versions.linked() is None and (store / name / "manifest.json").is_file():
            folders.append(store / name)
        folders.append(shipped_folder() / name)
        checked += [_check(name, folder) for folder in folders if folder.is_dir()]
    return checked


def _check(name: str, folder: Path) -> Checked:
    version = folder.name
    try:
        manifest = read_any_manifest(folder / "manifest.json")
        version = manifest.version
        verify_folder(folder, manifest)
    except ModelError as error:
        return Checked(name, version, folder, str(error), error.remedy)
    return Checked(name, version, folder)


def _names(store: Path) -> list[str]:
    """Return the names of all models and detectors here, whether or not they can be read."""
    found = {path.parent.name for path in shipped_folder().glob("*/manifest.json")}
    found |= {path.parent.name for path in store.glob("*/manifest.json")}
    found |= {path.name for path in (store / ".versions").glob("*") if path.is_dir()}
    return sorted(found)


def _manifest(folder: Path) -> Manifest | DetectorManifest | None:
    try:
        return read_any_manifest(folder / "manifest.json")
    except ModelError:
        return None
