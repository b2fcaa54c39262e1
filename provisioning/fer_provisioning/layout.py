"""Paths on a board, and the folders of the files that are copied there."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

USER: Final = "fer-agent"
UNIT: Final = "fer-agent.service"
SYNC_UNIT: Final = "fer-agent-sync.service"
SYNC_TIMER: Final = "fer-agent-sync.timer"

PREFIX: Final = "/opt/fer-agent"
RELEASES: Final = f"{PREFIX}/releases"
"""One folder a release; `VENV` is a link to the one in use, so going back is one rename."""
VENV: Final = f"{PREFIX}/venv"
COMMAND: Final = "/usr/local/bin/fer-agent"

CONFIG_FOLDER: Final = "/etc/fer-agent"
CONFIG: Final = f"{CONFIG_FOLDER}/config.toml"
CREDENTIALS: Final = f"{CONFIG_FOLDER}/credentials"
STATE: Final = "/var/lib/fer-agent"

UNIT_FOLDER: Final = "/etc/systemd/system"
DROPINS: Final = f"{UNIT_FOLDER}/{UNIT}.d"

TEMPORARY: Final = "/var/tmp"  # noqa: S108 - on disk: /tmp is memory on newer systems, and small
"""Uploads wait here."""

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent.parent


def checkout() -> Path | None:
    """Return the folder of the source checkout this package runs from; None for a wheel."""
    return _CHECKOUT if (_CHECKOUT / "pyproject.toml").is_file() else None


def units_folder() -> Path:
    """Return the folder of the unit and its drop-ins: the checkout's, or the wheel's copy."""
    installed = _PACKAGE / "_systemd"
    return installed if installed.is_dir() else _CHECKOUT / "systemd"


def constraints_folder() -> Path:
    """Return the folder of the version pins: the checkout's, or the wheel's copy."""
    installed = _PACKAGE / "_constraints"
    return installed if installed.is_dir() else _CHECKOUT / "constraints"


@cache
def board_script(name: str) -> str:
    """Return a board script's text; cached, because uninstalling on this machine removes it."""
    return (_PACKAGE / "board_scripts" / name).read_text(encoding="utf-8")
