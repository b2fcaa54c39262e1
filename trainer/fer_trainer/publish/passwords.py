"""Passwords of offline keys, from files or from a person at the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fer_agent.errors import UsageError
from fer_trainer.publish.errors import KeyFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

VARIABLE: Final = "FER_PUBLISH_PASSWORD_FILE"
"""Names a file that holds the password, for machines without a person at the terminal."""

LEAST_PASSWORD_BYTES: Final = 12
"""PKCS #8 as OpenSSL and `cryptography` write it stretches a password by 2,048 rounds of PBKDF2
only, so that the password itself has to be long."""

_TRIES = 3


@dataclass(frozen=True, slots=True)
class PasswordSource:
    """Passwords out of files first, then from a person.

    Attributes:
        files: each holds one password, in its first line.
        ask: asks a person for the password of a key, a new one twice; None without a person.
    """

    files: Sequence[Path]
    ask: Callable[[str, bool], str] | None

    def candidates(self, label: str) -> Iterator[bytes]:
        """Yield passwords that a key may be encrypted with.

        Raises:
            KeyFileError: a password's file cannot be read.
            UsageError: there is neither a file nor a person to ask.
        """
        yield from (_read(file) for file in self.files)
        if self.ask is None:
            if not self.files:
                raise _nobody(label)
            return
        for _ in range(_TRIES):
            if password := self.ask(label, False):  # noqa: FBT003  the port has no names
                yield password.encode()

    def fresh(self, label: str) -> bytes:
        """Return a password for a new key: the first file's, or a person's.

        Raises:
            KeyFileError: the password's file cannot be read.
            UsageError: there is none, or it is too short.
        """
        if self.files:
            password = _read(self.files[0])
        elif self.ask is not None:
            password = self.ask(label, True).encode()  # noqa: FBT003  as above
        else:
            raise _nobody(label)
        if len(password) < LEAST_PASSWORD_BYTES:
            raise UsageError(
                f"the password for the key {label} has {len(password)} bytes",
                remedy=f"take at least {LEAST_PASSWORD_BYTES}; six random words are good",
            )
        return password


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise KeyFileError(
            f"cannot read the password in {path}: {error.strerror}",
            remedy="name a file that you can read with --password-file",
        ) from error
    password = content.partition(b"\n")[0].rstrip(b"\r")
    if not password:
        raise KeyFileError(
            f"{path} holds no password", remedy="write the password into its first line"
        )
    return password


def _nobody(label: str) -> UsageError:
    return UsageError(
        f"the key {label} needs a password, and there is no terminal to ask at",
        remedy=f"name a file that holds it with --password-file, or in {VARIABLE}",
    )
