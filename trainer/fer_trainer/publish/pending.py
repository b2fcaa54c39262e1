"""A pending change, stored in a folder until enough keys have signed it.

`targets.json` and `root.json` are what will be published; `base.root.json` is the root before, and
says which keys must sign. A signer reads the metadata itself, never a description that came with
it; and the repository verifies everything when the change is applied.
"""

from __future__ import annotations

import shutil
from functools import partial
from typing import TYPE_CHECKING, Final

from tuf.api.metadata import Metadata, Root, Targets

from fer_agent.errors import UsageError
from fer_trainer.files import write_bytes, write_whole
from fer_trainer.publish.changes import MetadataChange
from fer_trainer.publish.errors import RepositoryError
from fer_trainer.publish.releases import Content
from fer_trainer.publish.repository import parse_metadata

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

_BASE: Final = "base.root.json"
_CONTENT: Final = "content"


def write(folder: Path, change: MetadataChange, base: Metadata[Root] | None) -> None:
    """Write a change into a new folder.

    Raises:
        UsageError: the folder is not empty.
        StorageError: the disk is full or refuses a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not empty", remedy="name a new folder with --out")
    for content in change.contents:
        place = folder / _CONTENT / content.target.path
        write_whole(place, partial(_copy, content.source))
    if base is not None:
        write_bytes(folder / _BASE, base.to_bytes())
    update(folder, change)


def _copy(source: Path, file: BinaryIO) -> None:
    with source.open("rb") as reading:
        shutil.copyfileobj(reading, file)


def update(folder: Path, change: MetadataChange) -> None:
    """Write a change's metadata again, with the signatures that it has now.

    Raises:
        StorageError: the disk is full or refuses a file.
    """
    for role, metadata in change.parts:
        write_bytes(folder / f"{role}.json", metadata.to_bytes())


def read(folder: Path) -> tuple[MetadataChange, Metadata[Root] | None]:
    """Read a change and the root before it.

    Raises:
        RepositoryError: the folder holds no change, or what it holds is no metadata.
    """
    root = _metadata(folder / "root.json", Root)
    targets = _metadata(folder / "targets.json", Targets)
    base = _metadata(folder / _BASE, Root)
    if (root is None and targets is None) or (root is None and base is None):
        raise RepositoryError(
            f"{folder} holds no change to sign",
            remedy="name the folder that was written with --out",
        )
    listed = targets.signed.targets.values() if targets is not None else ()
    contents = tuple(
        Content(target, place)
        for target in listed
        for place in (folder / _CONTENT / target.path,)
        if place.is_file()
    )
    return MetadataChange("apply a change made elsewhere", root, targets, contents), base


def _metadata(path: Path, kind: type) -> Metadata | None:  # type: ignore[type-arg]
    if not path.exists():
        return None
    metadata = parse_metadata(path)
    if not isinstance(metadata.signed, kind):
        raise RepositoryError(
            f"{path} holds {metadata.signed.type}", remedy="do not use it; make the change again"
        )
    return metadata
