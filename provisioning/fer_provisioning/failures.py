"""Turns a board's own error output into one sentence and one remedy."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from fer_agent.errors import (
    AgentError,
    CredentialsError,
    DownloadError,
    TemporaryError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_SHOWN_LINES = 8

_NO_INDEX = (
    r"NewConnectionError|Could not resolve|Temporary failure (in name )?resol|"
    r"Network is unreachable|Failed to establish a new connection|Failed to fetch"
)

_KNOWN: Final[tuple[tuple[str, type[AgentError], str, str], ...]] = (
    (
        r"Could not get lock|Unable to (acquire|lock)|is another process using it",
        TemporaryError,
        "another package manager holds apt's lock",
        "wait until its updates are through, then run the same command again",
    ),
    (
        r"No space left on device|Errno 28|not enough free space|Disk quota exceeded",
        UnavailableError,
        "the disk is full",
        "free some space (`sudo apt-get clean`, `journalctl --vacuum-size=50M`), then run again",
    ),
    (
        r"incorrect password|Sorry, try again|no password was provided",
        CredentialsError,
        "sudo refused the password",
        "run again with the password of the user you log in as",
    ),
    (
        r"is not in the sudoers|may not run sudo|not allowed to (run|execute)|sudo: not found",
        CredentialsError,
        "the user may not become root with sudo",
        "log in as a user that may, such as the one made when the card was flashed",
    ),
    (
        r"illegal instruction",
        UnavailableError,
        "{line}",
        "pin an older version of that package in constraints/, and report the board's model",
    ),
    (
        _NO_INDEX,
        DownloadError,
        "the board cannot reach the package index",
        "connect it to the internet, or run again with --offline",
    ),
    (
        r"No matching distribution found|ResolutionImpossible",
        DownloadError,
        "{line}",
        "check the version pins in constraints/ and the board's Python version",
    ),
    (
        r"Unable to locate package (\S+)",
        DownloadError,
        "{line}",
        "run `sudo apt-get update` there, and check its package sources",
    ),
)

_REFUSED = r"Authentication error|Authentication failed|No authentication methods"

_CONNECT: Final[tuple[tuple[str, type[AgentError], str, str], ...]] = (
    (
        r"host key.*does not match|BadHostKey",
        CredentialsError,
        "its host key is not the one in known_hosts: another machine may be answering",
        "if the board was flashed anew, remove the old key with `ssh-keygen -R HOST`",
    ),
    (
        r"No host key|StrictPolicy",
        CredentialsError,
        "its host key is not known, and nobody was asked",
        "connect once with `ssh` and compare the fingerprint, or use --known-hosts FILE",
    ),
    (
        _REFUSED,
        CredentialsError,
        "it refused the login",
        "copy your key there with `ssh-copy-id`, or name another with --key",
    ),
    (
        r"resolve hostname|gaierror|Name or service not known",
        UnavailableError,
        "its name cannot be resolved",
        "check the spelling, or use its address; .local names need avahi on the board",
    ),
    (
        r"",
        UnavailableError,
        "it cannot be reached: {line}",
        "check that it is switched on, in this network, and that SSH is enabled",
    ),
)


def connecting(reason: str) -> AgentError:
    """Explain why a connection failed."""
    return _explain(_CONNECT, [reason], "connect") or UnavailableError(
        f"connect: {reason}", remedy="check the network"
    )


def is_refused_login(reason: str) -> bool:
    """Tell whether a connection failed for want of the right key or password."""
    return re.search(_REFUSED, reason) is not None


def lost(step: str) -> AgentError:
    """Explain a connection that ended in the middle of a step."""
    return UnavailableError(
        f"{step}: the connection was cut",
        remedy="run the same command again; it goes on where this one stopped",
    )


def of_step(step: str, output: Sequence[str]) -> AgentError:
    """Explain a step that failed, by what it printed."""
    lines = [line.strip() for line in output if line.strip()]
    explained = _explain(_KNOWN, lines, step)
    if explained is not None:
        return explained
    said = "; ".join(lines[-_SHOWN_LINES:]) or "it printed nothing"
    return UnavailableError(
        f"{step}: {said}",
        remedy="mend what it says, then run the same command again",
    )


def _explain(
    known: Sequence[tuple[str, type[AgentError], str, str]], lines: Sequence[str], step: str
) -> AgentError | None:
    for pattern, error, sentence, remedy in known:
        for line in lines:
            if re.search(pattern, line, re.IGNORECASE):
                return error(f"{step}: {sentence.format(line=line)}", remedy=remedy)
    return None
