"""Key pairs as files, a private key in PEM (PKCS #8) and its public half.

`NAME.pem` is the private key, encrypted where it stays offline; `NAME.pub.pem` is the public one,
which may go anywhere. The name is a label for people; trust hangs on the key's id alone.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.exceptions import KeyMismatchError
from securesystemslib.signer import CryptoSigner, SSlibKey

from fer_agent.errors import UsageError
from fer_trainer.errors import StorageError
from fer_trainer.files import make_folder
from fer_trainer.publish.errors import KeyFileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path
    from typing import Protocol

    from securesystemslib.signer import Key

    class Passwords(Protocol):
        """A source of passwords."""

        def candidates(self, label: str) -> Iterable[bytes]:
            """Yield passwords that the key of that label may have, the likeliest first."""

        def fresh(self, label: str) -> bytes:
            """Return a password for a new key.

            Raises:
                UsageError: there is none, or it is too short.
            """


LABEL_FIELD: Final = "x-fer-name"
"""Field of a key in root metadata that carries its label."""

_PRIVATE = ".pem"
_PUBLIC = ".pub.pem"
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A private key's file whose public half is known.

    Attributes:
        path: the PEM file.
        public: the public key; its id names it in metadata.
    """

    path: Path
    public: SSlibKey

    @property
    def label(self) -> str:
        """The key's label, the file's name without its ending."""
        return self.path.name.removesuffix(_PRIVATE)


def label_of(key: Key) -> str:
    """Name a key for people: its label and the beginning of its id."""
    label = key.unrecognized_fields.get(LABEL_FIELD)
    return f"{label} ({key.keyid[:8]})" if isinstance(label, str) else key.keyid[:8]


def generate(folder: Path, label: str, passwords: Passwords | None) -> SSlibKey:
    """Make an Ed25519 key pair; one that is there already under that label stays and is used.

    Args:
        folder: receives `<label>.pem` for its owner alone, and `<label>.pub.pem`.
        label: what people call the key.
        passwords: encrypts the private key; None leaves it as it is, for keys of a machine that
            signs unattended.

    Raises:
        UsageError: the label is no file name, or there is no password.
        KeyFileError: a key of that label is there and cannot be read.
        StorageError: the disk refuses the files.
    """
    if not _LABEL.fullmatch(label):
        raise UsageError(f"{label!r} cannot name a key", remedy="use letters, digits, dots, dashes")
    private_path = folder / (label + _PRIVATE)
    if private_path.exists():
        return read_public(folder / (label + _PUBLIC))
    key = Ed25519PrivateKey.generate()
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passwords is not None:
        encryption = serialization.BestAvailableEncryption(passwords.fresh(label))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    make_folder(folder)
    # The public half first: a private key alone could not be named.
    _write(folder / (label + _PUBLIC), public, 0o644)
    _write(private_path, private, 0o600)
    return read_public(folder / (label + _PUBLIC))


def read_public(path: Path) -> SSlibKey:
    """Read a public key, labelled by its file's name.

    Raises:
        KeyFileError: it cannot be read, or is no public key of a kind that can sign metadata.
    """
    remedy = "name the .pub.pem file that `fer-train publish key` wrote"
    try:
        public = serialization.load_pem_public_key(path.read_bytes())
        key = SSlibKey.from_crypto(public)
    except OSError as error:
        raise KeyFileError(f"cannot read {path}: {error.strerror}", remedy=remedy) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"{path} is no public key in PEM", remedy=remedy) from error
    key.unrecognized_fields[LABEL_FIELD] = path.name.removesuffix(_PUBLIC).removesuffix(_PRIVATE)
    return key


def find(folders: Sequence[Path]) -> dict[str, KeyFile]:
    """Return the private keys in folders and the folders in them, by key id.

    Raises:
        KeyFileError: a folder is not there, or a public key in it is broken.
    """
    found: dict[str, KeyFile] = {}
    for folder in folders:
        if not folder.is_dir():
            raise KeyFileError(
                f"there is no folder of keys at {folder}",
                remedy="connect the medium that holds it, or name another with --keys",
            )
        for path in sorted(folder.rglob("*" + _PUBLIC)):
            private = path.with_name(path.name.removesuffix(_PUBLIC) + _PRIVATE)
            if private.is_file():
                public = read_public(path)
                found.setdefault(public.keyid, KeyFile(private, public))
    return found


def open_signer(file: KeyFile, passwords: Passwords) -> CryptoSigner:
    """Read a private key, decrypting it where it is encrypted.

    Raises:
        KeyFileError: it cannot be read, no password fits, or it is not the half of its public key.
    """
    remedy = "bring back the right file, or replace the key with `fer-train publish rotate`"
    try:
        content = file.path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"cannot read {file.path}: {error.strerror}", remedy=remedy) from error
    try:
        private = _decrypt(content, file, passwords)
        return CryptoSigner(private, file.public)  # type: ignore[arg-type]  # it checks the kind
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"{file.path} is no private key in PEM", remedy=remedy) from error
    except KeyMismatchError as error:
        raise KeyFileError(
            f"{file.path} is another key than the public half beside it", remedy=remedy
        ) from error


def _decrypt(content: bytes, file: KeyFile, passwords: Passwords) -> object:
    try:
        return serialization.load_pem_private_key(content, None)
    except TypeError:  # encrypted
        pass
    for password in passwords.candidates(file.label):
        try:
            return serialization.load_pem_private_key(content, password)
        except ValueError:
            continue
    raise KeyFileError(
        f"the password of {file.path} is another one",
        remedy="give the right one; without it the key is lost: replace it with "
        "`fer-train publish rotate`",
    )


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a new file with its permissions from the first moment; never over an older one."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise KeyFileError(
            f"{path} is there already, without the other half of its key pair",
            remedy="move it away, or take another name for the new key",
        ) from error
    except OSError as error:
        path.unlink(missing_ok=True)
        raise StorageError(
            f"{path} could not be written: {error.strerror}",
            remedy="free some space, or name a folder that you can write",
        ) from error
