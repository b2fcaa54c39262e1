"""Whether a configured camera is there, permitted and free, without opening it."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from pathlib import Path
from typing import NamedTuple

SERVICE_USER = "fer-agent"


class CameraProblem(NamedTuple):
    """What keeps a camera from being used: id, cause and remedy of a finding."""

    id: str
    cause: str
    remedy: str


def examine(name: str, source: str) -> CameraProblem | None:
    """Look at a camera's device or file; None when nothing speaks against it.

    Args:
        name: the camera's name in the configuration.
        source: as configured; addresses of streams and of CSI cameras are not looked at.
    """
    if source.isdecimal():
        source = f"/dev/video{source}"
    path = Path(source)
    if not (source.startswith("/dev/") or ("/" in source and "://" not in source) or path.exists()):
        return None
    if not path.exists():
        return CameraProblem(
            "camera-missing",
            f"camera {name}: there is nothing at {source}",
            "ls -l /dev/v4l/by-id; check the cable, and correct `source`",
        )
    who = _service_user()
    if not _may_use(path, who):
        return CameraProblem(
            "camera-forbidden",
            f"camera {name}: the user {who.pw_name} may not use {source}",
            _permit(path, who),
        )
    if source.startswith("/dev/") and (holder := _holder(path)):
        return CameraProblem(
            "camera-busy", f"camera {name}: {source} is held by {holder[1]}", f"kill {holder[0]}"
        )
    return None


def _service_user() -> pwd.struct_passwd:
    """Return whom the agent runs as: the service's user, or who asks where there is none."""
    try:
        return pwd.getpwnam(SERVICE_USER)
    except KeyError:
        return pwd.getpwuid(os.geteuid())


def _may_use(path: Path, who: pwd.struct_passwd) -> bool:
    """Tell whether a user may read a file, and for a device write it too."""
    if who.pw_uid == 0:
        return True
    status = path.stat()
    wanted = 0o6 if stat.S_ISCHR(status.st_mode) else 0o4
    groups = os.getgrouplist(who.pw_name, who.pw_gid)
    with contextlib.suppress(KeyError):
        groups.append(grp.getgrnam("video").gr_gid)  # the unit adds it
    if status.st_uid == who.pw_uid:
        mode = status.st_mode >> 6
    elif status.st_gid in groups:
        mode = status.st_mode >> 3
    else:
        mode = status.st_mode
    return mode & wanted == wanted


def _permit(path: Path, who: pwd.struct_passwd) -> str:
    if path.is_char_device():
        return f"sudo usermod -aG {grp.getgrgid(path.stat().st_gid).gr_name} {who.pw_name}"
    return f"sudo chmod o+r {path}"


def _holder(device: Path) -> tuple[int, str] | None:
    """Return process id and name of another program that has a device open; None when it is free.

    The agent itself is no other program.
    """
    number = device.stat().st_rdev
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if not any(os.stat(one).st_rdev == number for one in (folder / "fd").iterdir()):  # noqa: PTH116
                continue
            name = (folder / "comm").read_text(encoding="utf-8").strip()
            if name != "fer-agent":
                return int(folder.name), f"{name} (process {folder.name})"
    return None
