"""Making of new keys for a change, in a temporary folder for a dry run."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fer_trainer.files import make_folder
from fer_trainer.publish import keys

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from securesystemslib.signer import SSlibKey

    from fer_trainer.publish.keys import Passwords


@dataclass(frozen=True, slots=True)
class KeyMaker:
    """Makes key pairs; its folders hold all keys, the new ones included.

    Attributes:
        folders: where private keys are looked for, the new ones included.
        passwords: encrypt new keys that stay offline.
        throwaway: receives the keys of a dry run; None in earnest.
    """

    folders: tuple[Path, ...]
    passwords: Passwords
    throwaway: Path | None

    def make(self, label: str, folder: Path, *, secret: bool = False) -> SSlibKey:
        """Make a key pair, or take the one of that label that is in the folder already.

        Raises:
            AgentError: as in `keys.generate`.
        """
        if self.throwaway is None or (folder / f"{label}.pem").exists():
            return keys.generate(folder, label, self.passwords if secret else None)
        return keys.generate(self.throwaway, label, None)


@contextmanager
def key_maker(
    folders: Sequence[Path], new: Sequence[Path], passwords: Passwords, *, dry_run: bool
) -> Iterator[KeyMaker]:
    """Open a maker of keys.

    Args:
        folders: where the keys are that exist.
        new: folders that are made where missing, for new keys.
        passwords: encrypt new keys.
        dry_run: leave nothing behind.

    Raises:
        StorageError: a folder cannot be made.
    """
    places = tuple(dict.fromkeys((*folders, *new)))
    if not dry_run:
        for folder in new:
            make_folder(folder)
        yield KeyMaker(places, passwords, None)
        return
    with tempfile.TemporaryDirectory(prefix="fer-publish-") as name:
        there = tuple(place for place in places if place not in new or place.is_dir())
        yield KeyMaker((*there, Path(name)), passwords, Path(name))
