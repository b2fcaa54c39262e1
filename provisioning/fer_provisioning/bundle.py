"""Bundles to copy to a board: the wheel, pip, version pins, units, and offline all packages."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
from contextlib import ExitStack
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fer_agent import __version__
from fer_agent.errors import DownloadError, UsageError
from fer_agent.models.store import file_sha256
from fer_provisioning import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from email.message import Message

    from fer_provisioning.board import TargetBoard

_UNIT_PREFIX = "10-"
"""Our drop-ins' names begin with it; others in the folder are the owner's and stay."""

_SPACE_FACTOR = 4.5
"""Disk a release needs, by the size of its compressed wheels: archive, unpacked, compiled."""

_BUILT_ON_BOARD = {"jetson": ("pycuda",)}
"""Packages of an extra that have no wheels, because they are built against the board's CUDA."""

_ONLINE_BYTES = 150_000_000
"""Compressed wheels a board fetches itself: measured 101 MB for x86-64 and Python 3.11."""


@dataclass(frozen=True, slots=True)
class AgentRelease:
    """One version of the agent for one kind of board.

    Attributes:
        id: names it on the board: version and a digest of wheel, pins and units.
        version: of the agent.
    """

    id: str
    version: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """A release ready to be copied.

    Attributes:
        archive: an uncompressed tar file.
        archive_bytes: its size.
        needed_bytes: disk space that installing it takes on the board.
    """

    archive: Path
    archive_bytes: int
    needed_bytes: int


class Bundler:
    """Makes bundles in a temporary folder, each kind of board once, however many ask at a time.

    Args:
        wheel: the agent's wheel; None builds it from the checkout, or fetches this version.
        offline: put every wheel the board needs into the bundle.
        say: called with a line before work that takes long.
    """

    def __init__(self, *, wheel: Path | None, offline: bool, say: Callable[[str], None]) -> None:
        self._wheel = wheel
        self._offline = offline
        self._say = say
        self._releases: dict[TargetBoard, tuple[AgentRelease, Path]] = {}
        self._bundles: dict[TargetBoard, Bundle] = {}
        self._making = threading.RLock()
        self._cleanup = ExitStack()
        self._folder = Path(self._cleanup.enter_context(tempfile.TemporaryDirectory()))

    def close(self) -> None:
        """Remove the temporary folder."""
        self._cleanup.close()

    def release(self, board: TargetBoard) -> AgentRelease:
        """Name the release for one kind of board.

        Raises:
            UsageError: the file is no wheel of the agent.
            DownloadError: the wheel cannot be built or fetched.
        """
        with self._making:
            return self._content(board)[0]

    def bundle(self, board: TargetBoard) -> Bundle:
        """Pack the release for one kind of board.

        Raises:
            DownloadError: a wheel cannot be fetched.
        """
        with self._making:
            if board not in self._bundles:
                self._bundles[board] = self._pack(board)
            return self._bundles[board]

    def _content(self, board: TargetBoard) -> tuple[AgentRelease, Path]:
        """Make the folder whose content the release's id is computed from."""
        if board in self._releases:
            return self._releases[board]
        wheel = self._agent_wheel()
        content = Path(tempfile.mkdtemp(dir=self._folder))
        agent, systemd = content / "agent", content / "systemd"
        agent.mkdir()
        systemd.mkdir()
        (agent / wheel.name).write_bytes(wheel.read_bytes())
        constraints = layout.constraints_folder() / f"{board.constraints}.txt"
        (content / "constraints.txt").write_bytes(constraints.read_bytes())
        copy_units(board, systemd)
        version = wheel_version(wheel)
        release = AgentRelease(f"{version}-{_digest(content, board)}", version)
        self._releases[board] = release, content
        return self._releases[board]

    def _pack(self, board: TargetBoard) -> Bundle:
        release, content = self._content(board)
        wheels = content / "wheels"
        wheels.mkdir()
        compressed_bytes = _ONLINE_BYTES
        if self._offline:
            for path in self._wheelhouse(board, content).iterdir():
                shutil.copy2(path, wheels)
            compressed_bytes = sum(path.stat().st_size for path in wheels.iterdir())
        else:
            _pip("download", "--no-deps", "--dest", str(wheels), "pip", what="fetch pip")
        archive = self._folder / f"{release.id}.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(content, arcname=".", filter=_anonymous)
        return Bundle(archive, archive.stat().st_size, int(compressed_bytes * _SPACE_FACTOR))

    def _wheelhouse(self, board: TargetBoard, content: Path) -> Path:
        """Return a folder of every wheel a release needs, fetched once for each set of pins."""
        wheel = next(content.glob("agent/*.whl"))
        pins = (content / "constraints.txt").read_text(encoding="utf-8")
        parts = ("with pip", platform_tags(board), board.python, board.extras,
                 _requirements(wheel), pins)  # fmt: skip
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        name = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
        folder = cache / "fer-agent" / "wheelhouse" / name
        if not folder.is_dir():
            python = ".".join(map(str, board.python))
            self._say(f"fetching wheels for Python {python} on {board.architecture}")
            folder.parent.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(dir=folder.parent))
            try:
                _download(board, content, work)
                work.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another run was quicker
                    raise
            finally:
                shutil.rmtree(work, ignore_errors=True)
        return folder

    def _agent_wheel(self) -> Path:
        if self._wheel is None:
            self._wheel = self._build_or_fetch()
        wheel_version(self._wheel)
        return self._wheel

    def _build_or_fetch(self) -> Path:
        folder = self._folder / "agent"
        if checkout := layout.checkout():
            self._say("building the wheel from this checkout")
            _pip(
                "wheel",
                "--no-deps",
                "--wheel-dir",
                str(folder),
                str(checkout),
                what="build the wheel",
            )
        else:
            _pip(
                "download",
                "--no-deps",
                "--dest",
                str(folder),
                f"fer-agent=={__version__}",
                what=f"fetch fer-agent {__version__}",
            )
        return next(folder.glob("fer_agent-*.whl"))


def wheel_version(path: Path) -> str:
    """Read the version in a wheel of the agent.

    Raises:
        UsageError: the file is none.
    """
    remedy = "give a fer_agent-*.whl, as `pip wheel --no-deps .` in a checkout builds it"
    try:
        metadata = _metadata(path)
    except (OSError, zipfile.BadZipFile, StopIteration) as error:
        raise UsageError(f"{path} is no wheel: {error}", remedy=remedy) from error
    if metadata["Name"] != "fer-agent":
        raise UsageError(
            f"{path} is a wheel of {metadata['Name']}, not of fer-agent", remedy=remedy
        )
    return str(metadata["Version"])


def _metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return HeaderParser().parsestr(archive.read(name).decode())


def _requirements(wheel: Path) -> list[str]:
    return [str(one) for one in _metadata(wheel).get_all("Requires-Dist", [])]


def platform_tags(board: TargetBoard) -> list[str]:
    """List the wheel platforms a board takes, newest glibc first (PEP 600)."""
    major, minor = board.libc
    newer = [f"manylinux_{major}_{one}_{board.architecture}" for one in range(minor, 16, -1)]
    return [*newer, f"manylinux2014_{board.architecture}", f"linux_{board.architecture}"]


def _download(board: TargetBoard, content: Path, wheels: Path) -> None:
    """Fetch every wheel that the agent needs on a board.

    pip can fetch for another Python and processor than its own, but reads the conditions of a
    requirement (`; python_version < "3.11"`) as if for its own. So what the board needs in addition
    is fetched in another round, until nothing is missing.
    """
    constraints = str(content / "constraints.txt")
    common = ["--dest", str(wheels), "--constraint", constraints, "--prefer-binary"]
    target = ["--only-binary", ":all:", "--implementation", "cp"]
    target += ["--python-version", ".".join(map(str, board.python))]
    for tag in platform_tags(board):
        target += ["--platform", tag]
    agent = next(content.glob("agent/*.whl"))
    extras = [one for one in board.extra_names if one not in _BUILT_ON_BOARD]
    wanted = [f"fer-agent[{','.join(extras)}] @ {agent.as_uri()}", "pip"]
    for source in (name for extra in board.extra_names for name in _BUILT_ON_BOARD.get(extra, ())):
        # It has no wheels: the board builds it from its source, with these to build it.
        _pip("download", *common, "--no-deps", "--no-binary", source, source,
             what=f"fetch {source}")  # fmt: skip
        wanted += ["setuptools", "wheel", "pytools", "mako", "platformdirs"]
    while wanted:
        _pip("download", *common, *target, *wanted, what="fetch the agent's dependencies")
        wanted = missing_requirements(board, [*wheels.glob("*.whl"), agent], extras)
    for copy in wheels.glob("fer_agent-*.whl"):
        copy.unlink()


def missing_requirements(
    board: TargetBoard, wheels: Sequence[Path], extras: Sequence[str]
) -> list[str]:
    """List what the agent needs on a board beside the given wheels.

    Args:
        board: whose Python and processor decide which conditions hold.
        wheels: what is there; the agent's own among them.
        extras: of the agent.
    """
    python = ".".join(map(str, board.python))
    environment = {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": board.architecture,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }
    needs = {canonicalize_name(str(_metadata(one)["Name"])): _requirements(one) for one in wheels}
    missing: set[str] = set()
    seen: set[tuple[str, str]] = set()
    pending = [(name, "") for name in needs] + [("fer-agent", extra) for extra in extras]
    while pending:
        name, extra = pending.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for need in map(Requirement, needs[canonicalize_name(name)]):
            if need.marker and not need.marker.evaluate(environment | {"extra": extra}):
                continue
            if canonicalize_name(need.name) in needs:
                pending += [(need.name, one) for one in need.extras]
            else:
                need.marker = None
                missing.add(str(need))
    return sorted(missing)


def copy_units(board: TargetBoard, folder: Path) -> None:
    """Copy the units into a folder, with the drop-ins that belong on a board."""
    source = layout.units_folder()
    for unit in (layout.UNIT, layout.SYNC_UNIT, layout.SYNC_TIMER):
        (folder / unit).write_bytes((source / unit).read_bytes())
    sync = folder / f"{layout.SYNC_UNIT}.d"
    sync.mkdir()
    for place, names in ((folder, board.dropins), (sync, board.sync_dropins)):
        for name in names:
            (place / f"{_UNIT_PREFIX}{name}").write_bytes((source / name).read_bytes())


def _pip(*arguments: str, what: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "-q"]
    done = subprocess.run(  # noqa: S603 - our own interpreter; the arguments are ours
        [*command, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise DownloadError(
            f"cannot {what}: {(lines or done.stderr.splitlines() or ['pip failed'])[-1]}",
            remedy="check this machine's internet connection, `pip config list`, or give --wheel",
        )


def _digest(content: Path, board: TargetBoard) -> str:
    """Hash the content and the board's facts that make a release."""
    digest = hashlib.sha256(
        repr((board.kind, board.python, board.architecture, board.extras)).encode()
    )
    for path in sorted(content.rglob("*")):
        if path.is_file():
            digest.update(f"{path.name} {file_sha256(path)}\n".encode())
    return digest.hexdigest()[:10]


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry
