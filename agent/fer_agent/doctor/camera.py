"""Findings about configured cameras: missing, forbidden or busy; none is opened."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fer_agent.camera.backends.v4l2_device import holders
from fer_agent.camera.sources import backend_of
from fer_agent.config.model import AgentConfig
from fer_agent.doctor.finding import Finding, edit_command, reinstall_command
from fer_agent.doctor.packages import run_python
from fer_agent.errors import CameraError

SERVICE_USER = "fer-agent"

DEVICES = Path("/dev")
ARGUS_SOCKET = Path("/tmp/argus_socket")  # noqa: S108 - NVIDIA's daemon put it there

_NO_PICAMERA2: Final = 3
_LIST_PI_CAMERAS = f"""
import json, sys
try:
    from picamera2 import Picamera2
except ModuleNotFoundError as error:
    sys.exit({_NO_PICAMERA2} if error.name == "picamera2" else str(error))
print(json.dumps([one["Num"] for one in Picamera2.global_camera_info()]))
"""


def examine_all(config: AgentConfig, file: Path) -> Iterator[Finding]:
    """Examine every enabled camera of a configuration, which was read from `file`."""
    for name, section in config.camera.items():
        if section.enabled:
            finding = examine(name, section.source, file)
            if finding is not None:
                yield finding


def examine(name: str, source: str, file: Path) -> Finding | None:
    """Examine a camera's device or file; None without a finding.

    Args:
        name: the camera's name in the configuration.
        source: as configured; streams are not examined.
        file: the configuration.
    """
    try:
        backend = backend_of(source)
    except CameraError as error:
        return Finding("camera-missing", f"camera {name}: {error}", error.remedy,
                       edit_command(file))  # fmt: skip
    if backend == "stream":
        return None
    if backend == "picam":
        return _examine_picam(name, int(source.partition(":")[2]))
    if backend == "csi":
        return _examine_csi(name, source)
    return _examine_path(name, Path(f"/dev/video{source}" if source.isdecimal() else source))


def _examine_path(name: str, path: Path) -> Finding | None:
    if not path.exists():
        return Finding(
            "camera-missing",
            f"camera {name}: there is nothing at {path}",
            "check the cable, and correct `source` to one that is listed",
            "fer-agent camera list",
        )
    who = service_user()
    if not _may_use(path, who):
        return Finding(
            "camera-forbidden",
            f"camera {name}: the user {who.pw_name} may not use {path}",
            f"let {who.pw_name} use it",
            _permit(path, who),
        )
    return _busy(name, str(path), holder_of(path)) if path.is_char_device() else None


def _examine_picam(name: str, number: int) -> Finding | None:
    status, said = run_python(_LIST_PI_CAMERAS)
    if status == _NO_PICAMERA2:
        return Finding(
            "picamera2-missing",
            f"camera {name}: this Python has no picamera2",
            "install the system's package",
            "sudo apt-get install -y python3-picamera2",
        )
    if status != 0:
        return Finding(
            "picamera2-broken",
            f"camera {name}: picamera2 cannot list cameras: {said or 'it does not end'}",
            "make the environment anew, with the versions that fit the system's",
            reinstall_command(),
        )
    if number not in json.loads(said):
        return Finding(
            "camera-missing",
            f"camera {name}: libcamera does not see a camera {number}",
            "switch off, push both ends of the ribbon cable in, and look what is listed",
            "fer-agent camera list",
        )
    # libcamera locks the media device of a camera that is in use.
    holders = (_lock_holder(path) for path in sorted(DEVICES.glob("media*")))
    return _busy(name, f"picam:{number}", next((one for one in holders if one), None))


def _examine_csi(name: str, source: str) -> Finding | None:
    if ARGUS_SOCKET.exists():
        return None
    return Finding(
        "camera-missing",
        f"camera {name}: the Argus daemon, which {source} needs, does not run",
        "start it",
        "sudo systemctl restart nvargus-daemon",
    )


def _busy(name: str, source: str, process: int | None) -> Finding | None:
    if process is None:
        return None
    comm, unit = _comm(process), _unit(process)
    return Finding(
        "camera-busy",
        f"camera {name}: {source} is held by {comm} (process {process})",
        f"stop {unit or comm}",
        f"sudo systemctl stop {unit}" if unit else f"sudo kill {process}",
    )


def service_user() -> pwd.struct_passwd:
    """Return the user that the agent runs as: the service's, or this one without a service."""
    try:
        return pwd.getpwnam(SERVICE_USER)
    except KeyError:
        return pwd.getpwuid(os.geteuid())


def _may_use(path: Path, who: pwd.struct_passwd) -> bool:
    """Return whether a user may read a file, and for a device write it too."""
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


def holder_of(device: Path) -> int | None:
    """Return the id of another process that has a device open; None when it is free."""
    return next((one for one in holders(str(device)) if not _is_agent(one)), None)


def _lock_holder(path: Path) -> int | None:
    """Return the id of another process that has locked a file; None when it is free.

    Source: proc(5), /proc/locks: number, kind, mode, access, process, and major:minor:inode.
    """
    status = path.stat()
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
        words = line.split()
        if place in words and not _is_agent(process := int(words[words.index(place) - 1])):
            return process
    return None


def _is_agent(process: int) -> bool:
    """Return whether a process is the service, or an agent where there is no service."""
    if _comm(process) != SERVICE_USER:
        return False
    try:
        return Path(f"/proc/{process}").stat().st_uid == pwd.getpwnam(SERVICE_USER).pw_uid
    except KeyError:
        return True


def _comm(process: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/comm").read_text(encoding="utf-8").strip()
    return "a process"


def _unit(process: int) -> str:
    """Return the system service that a process belongs to; empty for none."""
    with contextlib.suppress(OSError):
        groups = Path(f"/proc/{process}/cgroup").read_text(encoding="utf-8")
        if found := re.search(r"/system\.slice/(?:.*/)?([^/\n]+\.service)", groups):
            return found[1]
    return ""
