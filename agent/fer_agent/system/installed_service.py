"""The installed service's status and log on this board, and the relay to provisioning.

Provisioning is a separate program that needs an extra, which a board's agent does without.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from fer_agent import __version__
from fer_agent.errors import MissingExtraError, UnavailableError

UNIT = "fer-agent.service"
_PROPERTIES = (
    "LoadState",
    "ActiveState",
    "Result",
    "ExecMainStatus",
    "NRestarts",
    "ActiveEnterTimestamp",
    "StatusText",
)


def relay(command: str, arguments: Sequence[str]) -> NoReturn:
    """Replace this process by `python -m fer_provisioning`.

    Raises:
        MissingExtraError: pyinfra is not installed.
    """
    if importlib.util.find_spec("pyinfra") is None:
        raise MissingExtraError(
            f"`fer-agent {command}` needs pyinfra, which is not installed",
            remedy="run `pip install 'fer-agent[provision]'`",
        )
    sys.stdout.flush()
    os.execv(  # noqa: S606 - our own interpreter and module; no shell is wanted
        sys.executable, [sys.executable, "-m", "fer_provisioning", command, *arguments]
    )


def show_log(*, follow: bool, lines: int) -> NoReturn:
    """Replace this process by journalctl for the service on this board.

    Raises:
        UnavailableError: there is no journal.
    """
    journalctl = _program("journalctl")
    options = ["--no-pager", "-q", "-o", "short-iso", "-u", UNIT, "-n", str(lines)]
    os.execv(journalctl, [journalctl, *options, *(["-f"] if follow else [])])  # noqa: S606 - as above


def service_status() -> dict[str, Any]:
    """Return systemd's status of the service on this board.

    Raises:
        UnavailableError: there is no systemd.
    """
    command = [_program("systemctl"), "show", UNIT, "-p", ",".join(_PROPERTIES)]
    done = subprocess.run(  # noqa: S603 - a fixed command
        command, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise UnavailableError(
            f"systemd does not answer: {done.stderr.strip()}",
            remedy="run this on the board itself, booted with systemd",
        )
    said = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    return {
        "installed": said["LoadState"] == "loaded",
        "version": __version__,
        "service": said["ActiveState"],
        "result": said["Result"],
        "exit_status": int(said["ExecMainStatus"] or 0),
        "restarts": int(said["NRestarts"] or 0),
        "since": said["ActiveEnterTimestamp"] or None,
        "status": said["StatusText"] or None,
    }


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise UnavailableError(
            f"{name} is not there, so systemd does not run the service",
            remedy="use `fer-agent run` where there is no systemd",
        )
    return found
