"""What `fer-agent models list` and `verify` show: the versions here, and whether they are whole."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fer_agent.errors import ModelError, UsageError
from fer_agent.models.manifest import Manifest, read_any_manifest
from fer_agent.models.store import shipped_folder, verify_file
from fer_agent.updates import report
from fer_agent.updates.activation import state
from fer_agent.updates.activation.versions import Versions
from fer_agent.updates.catalog import kind_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from fer_agent.models.manifest import DetectorManifest


@dataclass(frozen=True, slots=True)
class Row:
    """One model name.

    Attributes:
        name: the name.
        kind: emotion-model, face-detector, or why its manifest cannot be read.
        current: the version that runs.
        stored: the versions that were downloaded, the newest first.
        shipped: the version that came with the agent; None without one.
        available: the newest version in the repository at the last sync; None when not known.
        refused: versions that did not prove themselves.
    """

    name: str
    kind: str
    current: str | None
    stored: tuple[str, ...]
    shipped: str | None
    available: str | None
    refused: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Checked:
    """One folder that was checked.

    Attributes:
        name: the model's name.
        version: its version; the folder's name when the manifest cannot be read.
        folder: where it lies.
        problem: what is wrong; empty when it is whole.
        remedy: what to do about it.
    """

    name: str
    version: str
    folder: Path
    problem: str = ""
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {**asdict(self), "folder": str(self.folder), "whole": not self.problem}


def rows(store: Path) -> list[Row]:
    """Return what is known of every model name in the store and among the shipped ones."""
    last = report.read(store)
    available = {} if last is None else {each.name: each.available for each in last.models}
    refused = state.refusals(store).refused
    found = []
    for name in _names(store):
        versions = Versions(store, name)
        shipped = _manifest(shipped_folder() / name)
        current = _manifest(store / name) or shipped
        found.append(
            Row(
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


def table(columns: Sequence[str], content: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of a table; a dash stands for nothing."""
    cells = [list(columns)]
    for row in content:
        texts = [" ".join(each) if isinstance(each, tuple) else each for each in row.values()]
        cells.append([text or "-" for text in texts])
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    for line in cells:
        yield "  ".join(
            text.ljust(width) for text, width in zip(line, widths, strict=True)
        ).rstrip()


def verify(store: Path, names: Collection[str]) -> list[Checked]:
    """Check folders of models against their manifests, whether or not they run.

    Args:
        store: the model store's folder.
        names: which models; empty for all.

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
        for entry in manifest.files:
            verify_file(folder / entry.path, sha256=entry.sha256, size_bytes=entry.bytes)
        if isinstance(manifest, Manifest) and manifest.golden is not None:
            golden = manifest.golden
            path = folder / golden.path
            verify_file(path, sha256=golden.sha256, size_bytes=golden.bytes)
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
