"""A finding of `fer-agent doctor`, and the commands that fix findings."""

from __future__ import annotations

import importlib.util
import os
import pwd
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

INSTALLED_FOLDER = Path("/opt/fer-agent")
"""The program's folder after `fer-agent install`."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault, present or imminent.

    Attributes:
        id: names the kind of finding; stays the same from version to version.
        cause: the fault with its value, in one sentence.
        remedy: the fix in words.
        command: the one command that does it, or opens the file where it is done.
    """

    id: str
    cause: str
    remedy: str
    command: str


def edit_command(path: Path) -> str:
    """Return the command that opens a file of the configuration."""
    system = path.is_relative_to("/etc")
    return f"sudoedit {path} && sudo systemctl restart fer-agent" if system else f"editor {path}"


def reinstall_command() -> str:
    """Return the command that rebuilds this program's Python environment."""
    if not Path(sys.prefix).resolve().is_relative_to(INSTALLED_FOLDER):
        return f"{sys.executable} -m pip install --force-reinstall fer-agent"
    if importlib.util.find_spec("pyinfra") is not None:
        return "sudo fer-agent upgrade --reinstall"
    user = os.environ.get("SUDO_USER") or pwd.getpwuid(os.geteuid()).pw_name
    return f"fer-agent upgrade --reinstall {user}@{socket.gethostname()}.local"
