"""Identifies boards from a probe's answers, and refuses those that cannot run an agent."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from fer_agent.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable

MIN_PYTHON = (3, 10)
_WHEEL_ARCHITECTURES = {"arm64": "aarch64", "amd64": "x86_64"}
_PI_SYSTEMS = ("bookworm", "trixie")
_JETPACKS = {36: "JetPack 6", 38: "JetPack 7"}
"""JetPack by the major release of Jetson Linux (L4T), as NVIDIA's JetPack archive lists them."""
_OLDEST_JETPACK = min(_JETPACKS)
_OLD_JETPACKS = {
    32: "JetPack 4 (Python 3.6)",
    34: "JetPack 5 (Python 3.8)",
    35: "JetPack 5 (Python 3.8)",
}
_JETPACK_PARTS = {"tensorrt": "TensorRT for Python", "nvcc": "the CUDA toolkit"}
"""Parts that a Jetson flashed without JetPack's components lacks, by the probe's word."""


class UnsupportedBoardError(UnavailableError):
    """The board's system cannot run the agent."""


class BoardKind(str, Enum):
    """The way of installing that a board needs."""

    PI = "pi"
    JETSON = "jetson"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Probe:
    """Answers of `probe.sh`; empty strings where the board does not know.

    Attributes:
        values: single values by their name.
        releases: ids of the complete releases.
        secrets: sha256 of each installed secret by its name.
    """

    values: dict[str, str] = field(default_factory=dict)
    releases: tuple[str, ...] = ()
    secrets: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, lines: Iterable[str]) -> Probe:
        """Read the script's `key=value` lines."""
        values: dict[str, str] = {}
        releases: list[str] = []
        secrets: dict[str, str] = {}
        for line in lines:
            key, _, value = line.partition("=")
            if key == "release":
                releases.append(value)
            elif key == "secret":
                name, _, sha256 = value.rpartition(" ")
                secrets[name] = sha256
            else:
                values[key] = value.strip()
        return cls(values, tuple(releases), secrets)

    def get(self, key: str) -> str:
        """Return one value, or the empty string."""
        return self.values.get(key, "")

    def number(self, key: str) -> int:
        """Return the number a value starts with, or 0."""
        match = re.match(r"\d+", self.get(key))
        return int(match[0]) if match else 0

    @property
    def current_release(self) -> str:
        """Id of the release in use; empty when none is."""
        return self.get("current").rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class TargetBoard:
    """A board that can run the agent, and the facts that its installation depends on.

    Attributes:
        kind: the way of installing that it needs.
        name: model and system, for people; boards that differ in it alone get the same release.
        python: major and minor version of the system's python3.
        architecture: as wheels call it, `aarch64` or `x86_64`.
        libc: major and minor version of its glibc.
        systemd: major version of its systemd.
        constraints: file of version pins.
        is_here: whether it is this machine, which keeps the commands that install.
    """

    kind: BoardKind
    name: str = field(compare=False)
    python: tuple[int, int]
    architecture: str
    libc: tuple[int, int]
    systemd: int
    constraints: str
    is_here: bool = False

    @property
    def system_site_packages(self) -> bool:
        """True where the environment sees the system's Python packages: picamera2 and TensorRT."""
        return self.kind is not BoardKind.PLAIN

    @property
    def apt_packages(self) -> dict[str, str]:
        """Packages the agent needs from the board's distribution, by the probe's word for them.

        A Jetson builds pycuda from its source.
        """
        if self.kind is BoardKind.PI:
            return {"picamera2": "python3-picamera2"}
        return (
            {"headers": "python3-dev", "compiler": "g++"} if self.kind is BoardKind.JETSON else {}
        )

    @property
    def extra_names(self) -> tuple[str, ...]:
        """Extras of the wheel that this board needs."""
        jetson = ("jetson",) if self.kind is BoardKind.JETSON else ()
        return (*jetson, "provision") if self.is_here else jetson

    @property
    def extras(self) -> str:
        """Extras of the wheel, in the brackets pip wants; empty for none."""
        return f"[{','.join(self.extra_names)}]" if self.extra_names else ""

    @property
    def modules(self) -> tuple[str, ...]:
        """Modules to import before a release is trusted."""
        own = {
            BoardKind.PI: ("picamera2",),
            BoardKind.JETSON: ("tensorrt", "pycuda.driver"),
            BoardKind.PLAIN: (),
        }
        return ("numpy", "cv2", "onnxruntime", "paho.mqtt.client", *own[self.kind], "fer_agent.cli")

    @property
    def camera(self) -> str:
        """The camera such a board usually has, as the configuration names it."""
        return "picam:0" if self.kind is BoardKind.PI else "/dev/video0"

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups the unit's drop-in names; systemd refuses to start with one that is missing."""
        return ("video", "render") if self.kind is BoardKind.JETSON else ("video",)

    @property
    def dropins(self) -> tuple[str, ...]:
        """Drop-ins of the unit that belong on this board."""
        board = () if self.kind is BoardKind.PLAIN else (f"{self.kind.value}.conf",)
        # Unknown keys are warnings in every start's log, so older systemds get a separate file.
        growing = "growing-delay.conf" if self.systemd >= 254 else "growing-delay-before-254.conf"
        return (*board, growing)

    @property
    def sync_dropins(self) -> tuple[str, ...]:
        """Drop-ins of the sync's unit that belong on this board."""
        return ("jetson-sync.conf",) if self.kind is BoardKind.JETSON else ()


def identify(probe: Probe, *, is_here: bool = False) -> TargetBoard:
    """Tell a board from its probe; `is_here` says that it is this machine.

    Raises:
        UnsupportedBoardError: it cannot run the agent; the message says why.
    """
    _check_system(probe)
    python = _version(probe.get("python"))
    kind, name, constraints = BoardKind.PLAIN, probe.get("os_name"), "default"
    if probe.get("tegra") or probe.get("l4t"):
        kind, name = BoardKind.JETSON, f"{probe.get('model') or 'Jetson'}, {_jetpack(probe)}"
    elif probe.get("model").startswith("Raspberry Pi") and probe.get("os_id") == "debian":
        kind, name = BoardKind.PI, f"{probe.get('model')}, {_pi_system(probe)}"
    if python < MIN_PYTHON:
        raise UnsupportedBoardError(
            f"its Python is {probe.get('python') or 'missing'}; the agent needs 3.10 or newer",
            remedy="install a newer system: Debian 12, Ubuntu 22.04 or later"
            if probe.get("python")
            else "install python3 there",
        )
    if kind is BoardKind.PI and probe.get("os_codename") == "bookworm":
        constraints = "bookworm-pi"
    elif python == (3, 10):
        constraints = "py310"
    return TargetBoard(
        kind=kind,
        name=name,
        python=python,
        architecture=_WHEEL_ARCHITECTURES[probe.get("architecture")],
        libc=_version(probe.get("libc").rpartition(" ")[2]),
        systemd=probe.number("systemd"),
        is_here=is_here,
        constraints=constraints,
    )


def _check_system(probe: Probe) -> None:
    system = probe.get("os_name") or probe.get("os_id") or "an unknown system"
    architecture = probe.get("architecture")
    if architecture == "armhf" or (not architecture and probe.get("machine").startswith("armv")):
        raise UnsupportedBoardError(
            f"{system} is a 32-bit system; ONNX Runtime has no 32-bit Arm wheels",
            remedy="flash the 64-bit Raspberry Pi OS (Bookworm or Trixie)",
        )
    if architecture not in _WHEEL_ARCHITECTURES:
        raise UnsupportedBoardError(
            f"{system} on {architecture or probe.get('machine') or 'an unknown processor'} is not "
            "Debian or Ubuntu on arm64 or amd64",
            remedy="use Raspberry Pi OS, JetPack, Debian 12 or Ubuntu 22.04, or later ones",
        )
    if not probe.get("systemd_runs"):
        raise UnsupportedBoardError(
            "systemd does not run there, and it is what starts and watches the service",
            remedy="install on a booted system, not in a plain container or chroot",
        )


def _jetpack(probe: Probe) -> str:
    """Name the JetPack from `/etc/nv_tegra_release` (# R36 (release), …) or its core package."""
    match = re.search(r"R(\d+)", probe.get("tegra")) or re.match(r"(\d+)\.", probe.get("l4t"))
    major = int(match[1]) if match else 0
    if major >= _OLDEST_JETPACK:
        lacking = [part for word, part in _JETPACK_PARTS.items() if not probe.get(word)]
        if lacking:
            raise UnsupportedBoardError(
                f"it lacks {' and '.join(lacking)}, which come with JetPack",
                remedy="run `sudo apt-get install nvidia-jetpack` there",
            )
        return _JETPACKS.get(major, f"Jetson Linux R{major}")
    old = _OLD_JETPACKS.get(major, f"Jetson Linux R{major}" if major else "an unknown JetPack")
    raise UnsupportedBoardError(
        f"it has {old}; the agent needs JetPack 6 or 7, whose Python is 3.10 or newer",
        remedy="flash JetPack 6 or 7 with NVIDIA's SDK Manager",
    )


def _pi_system(probe: Probe) -> str:
    codename = probe.get("os_codename")
    if codename not in _PI_SYSTEMS:
        raise UnsupportedBoardError(
            f"it has Raspberry Pi OS {codename or 'of unknown age'}; the agent needs Bookworm or "
            "Trixie",
            remedy="flash the 64-bit Raspberry Pi OS (Bookworm or Trixie)",
        )
    return f"Raspberry Pi OS {codename.capitalize()}"


def _version(text: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)
