"""Check or renew the pinned versions of `constraints/`, with pip as the resolver.

    python scripts/constraints.py check TARGET      do the pins satisfy pyproject.toml everywhere?
    python scripts/constraints.py update TARGET     write the newest versions that do

pip can resolve for another Python and processor than its own, but reads the conditions of a
requirement (`; python_version < "3.11"`) as if for its own. So what the target needs in addition is
asked for in another round, until nothing is missing.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parent.parent
_GLIBC_MINOR = 35
"""Of JetPack 6 (Ubuntu 22.04); Raspberry Pi OS is newer."""
_UNPINNED = re.compile(r"^(nvidia-|cuda-|triton$|pip$)")
"""What torch brings for graphics cards: a machine without one chooses freely."""


@dataclass(frozen=True)
class Place:
    """A Python and a processor to resolve for."""

    python: str
    machine: str
    trains: bool = False
    """Whether `update` includes the trainer here. Its torch is a download of gigabytes; `check`
    leaves it to `make test`, which installs it."""

    def holds(self, requirement: Requirement, extras: set[str]) -> bool:
        """Tell whether a requirement counts here, with the extras of the package that has it."""
        environment = {
            "python_version": self.python,
            "python_full_version": f"{self.python}.0",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "implementation_name": "cpython",
        }
        return requirement.marker is None or any(
            requirement.marker.evaluate(environment | {"extra": extra}) for extra in extras | {""}
        )

    def platforms(self) -> list[str]:
        """Return the wheel platforms that run here, the newest first."""
        modern = [f"manylinux_2_{minor}_{self.machine}" for minor in range(_GLIBC_MINOR, 4, -1)]
        return [*modern, f"manylinux2014_{self.machine}"]


_AGENT_EXTRAS = ("broker", "provision")
TARGETS: dict[str, tuple[tuple[Place, ...], tuple[str, ...]]] = {
    "default": (
        (Place("3.11", "x86_64", trains=True), Place("3.13", "x86_64"), Place("3.13", "aarch64")),
        (*_AGENT_EXTRAS, "dev"),
    ),
    # arm64 first, because it has fewer wheels to choose among.
    "py310": (
        (Place("3.10", "aarch64"), Place("3.10", "x86_64", trains=True)),
        (*_AGENT_EXTRAS, "dev"),
    ),
    "bookworm-pi": ((Place("3.11", "aarch64"),), _AGENT_EXTRAS),
}
"""Where each file must resolve, and with which extras."""

_LIMITS = {
    "default": ("torch<2.15",),
    "py310": ("torch<2.15", "numpy<2.3", "onnxruntime<1.24"),
    "bookworm-pi": ("numpy<2", "opencv-python-headless<4.12"),
}
"""Beyond pyproject.toml: torch 2.15 comes with CUDA 13.2, 2.14 with 13.0, which more drivers run;
the last numpy and onnxruntime for Python 3.10; simplejpeg of a Pi's system is built for numpy 1."""


def main(arguments: list[str]) -> int:
    """Run `check` or `update` for one target; return the exit status."""
    match arguments:
        case ["check", target] if target in TARGETS:
            return check(target)
        case ["update", target] if target in TARGETS:
            update(target)
        case _:
            print(f"usage: constraints.py check|update {'|'.join(TARGETS)}", file=sys.stderr)
            return 2
    return 0


def check(target: str) -> int:
    """Resolve a target at all of its places; return 1 when that takes a package without a pin."""
    places, path = TARGETS[target][0], ROOT / "constraints" / f"{target}.txt"
    pinned = set(re.findall(r"^([a-z0-9-]+)==", path.read_text(encoding="utf-8"), re.MULTILINE))
    loose: set[str] = set()
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda place: resolve(target, place, path), places)
        for place, versions in zip(places, found, strict=True):
            print(f"{target}: {len(versions)} packages for {place.python} {place.machine}")
            loose |= versions.keys() - pinned
    if loose:
        print(f"not pinned in {path.name}: {', '.join(sorted(loose))}", file=sys.stderr)
    return 1 if loose else 0


def update(target: str) -> None:
    """Write the newest versions that resolve at all of a target's places."""
    path = ROOT / "constraints" / f"{target}.txt"
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    with tempfile.TemporaryDirectory() as folder:
        limits = Path(folder) / "limits.txt"
        limits.write_text("\n".join(_LIMITS[target]))
        versions: dict[str, str] = {}
        for place in TARGETS[target][0]:
            extras = ["trainer"] if place.trains else []
            versions |= resolve(target, place, limits, extras)
            pins = [f"{name}=={version}" for name, version in sorted(versions.items())]
            limits.write_text("\n".join(pins))
    path.write_text("\n".join(head + pins) + "\n")


def resolve(
    target: str, place: Place, constraints: Path, more_extras: Sequence[str] = ()
) -> dict[str, str]:
    """Let pip find a version of every package a target needs, under constraints.

    Raises:
        subprocess.CalledProcessError: there is none; pip's words are on stderr.
    """
    wanted = _requirements([*TARGETS[target][1], *more_extras], place)
    versions: dict[str, str] = {}
    while wanted:
        packages = _pip(sorted(wanted), place, constraints)
        versions |= {
            canonicalize_name(package["metadata"]["name"]): package["metadata"]["version"]
            for package in packages
        }
        # Later rounds agree with earlier ones because `check` pins every package of each.
        wanted = {
            f"{requirement.name}{requirement.specifier}"
            for package in packages
            for requirement in map(Requirement, package["metadata"].get("requires_dist", ()))
            if place.holds(requirement, set(package.get("requested_extras", ())))
            and canonicalize_name(requirement.name) not in versions
        }
    return {name: text for name, text in versions.items() if not _UNPINNED.match(name)}


def _requirements(extras: list[str], place: Place) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    lines = project["dependencies"] + [line for extra in extras for line in optional[extra]]
    needed = [Requirement(line) for line in lines]
    return {str(item).split(";")[0].strip() for item in needed if place.holds(item, set())}


def _pip(requirements: list[str], place: Place, constraints: Path) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "-qq", "--dry-run"]
        command += ["--ignore-installed", "--only-binary=:all:", "--target", folder]
        command += ["--python-version", place.python, "--implementation", "cp"]
        command += [f"--platform={platform}" for platform in place.platforms()]
        command += ["--constraint", str(constraints), "--report", str(report), *requirements]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        installed: list[dict[str, Any]] = json.loads(report.read_text())["install"]
    return installed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
