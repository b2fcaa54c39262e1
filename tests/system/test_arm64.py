"""The agent on a Pi's architecture: arm64 wheels in a Debian root, run by qemu.

It shows that the wheels, the models and our code run there and compute the same; not how fast.

The root and the wheels are fetched once and kept in the user's cache, compiled by this Python:
under emulation that takes longer than all the rest, and is left to it only where this Python is
another version than the board's. Programs of another architecture run in a user namespace that
tells the kernel about qemu for itself alone (Linux 6.7); with the namespace's last process its
mounts and that are gone.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import numpy as np
import pytest

from fer_agent.bench import schema
from fer_agent.inference import golden
from fer_agent.inference.onnx import OnnxSession
from fer_agent.models.store import find_model

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.exhaustive, pytest.mark.xdist_group("arm64"), pytest.mark.timeout(2400)]

NAME = "microexpnet-fer2013"
SUITE, PYTHON = "bookworm", "311"
PLATFORMS = [f"manylinux_2_{minor}_aarch64" for minor in (36, 34, 31, 28, 27, 26, 24, 17)]
FETCH_TIMEOUT_S = 1200
RUN_TIMEOUT_S = 1200

QEMU = (
    r":fer-agent-arm64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:"
    r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:%s:F"
)
"""How the kernel knows an ELF file for arm64, and what runs it; F opens that before any chroot.
Source: the kernel's admin-guide/binfmt-misc and QEMU's scripts/qemu-binfmt-conf.sh."""

# No /sys: the runtime would read an x86-64's processor there, and fall over it.
ENTER = """
set -eu
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
printf %s "$2" >/proc/sys/fs/binfmt_misc/register
for folder in proc dev; do mount --rbind "/$folder" "$1/$folder"; done
mount --bind "$3" "$1/opt/libraries"
mount --bind "$4" "$1/opt/agent"
mount -t tmpfs none "$1/tmp"
shift 4
exec chroot "$@"
"""

LOGITS = f"""
import json, sys
from fer_agent.inference import golden
from fer_agent.models.store import find_model
from fer_agent.inference.onnx import OnnxSession
model = find_model({NAME!r})
inputs = golden.of_model(model).input
print(json.dumps({{
    file.precision: OnnxSession(model.verified_file(file.precision)).run(inputs)["logits"].tolist()
    for file in model.manifest.files
}}))
"""


def cached(name: str, recipe: str, make: Callable[[Path], None]) -> Path:
    """Return a folder of the user's cache, made when it is not there; it is whole or not there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fer-agent-tests"
    folder = cache / f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        work = cache / f"making-{name}-{os.getpid()}"
        try:
            make(work)
            with contextlib.suppress(OSError):  # somebody else may have made it meanwhile
                work.rename(folder)
            assert folder.is_dir()
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return folder


def fetch(command: list[object]) -> None:
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=FETCH_TIMEOUT_S,
    )
    if done.returncode:
        last = (done.stderr + done.stdout).strip().splitlines()[-1:]
        pytest.skip(f"{Path(str(command[0])).name} cannot fetch what arm64 needs: {last}")


def compile_all(folder: Path) -> None:
    # Checked by content: times of a wheel's files may be any. What cannot be compiled stays.
    options = ["-q", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    subprocess.run([sys.executable, "-m", "compileall", *options, folder], check=False)


@pytest.fixture(scope="module")
def debian(require_program: Callable[[str], Path]) -> Path:
    """A Debian for arm64 with Python; unpacked and not set up, which is enough to run it."""
    if os.geteuid() != 0:
        pytest.skip("unpacking a Debian needs root")
    debootstrap, dpkg = require_program("debootstrap"), require_program("dpkg-deb")

    def make(work: Path) -> None:
        debs = work.with_name(f"{work.name}-debs")
        options = ["--arch=arm64", "--variant=minbase", "--include=python3", "--download-only"]
        try:
            fetch([debootstrap, *options, SUITE, debs])
            for mounted in ("libraries", "agent"):
                (work / "opt" / mounted).mkdir(parents=True)
            # By the host's own programs: under emulation this takes half an hour.
            script = (
                f"for deb in {shlex.quote(str(debs))}/var/cache/apt/archives/*.deb; do"
                f" {dpkg} --fsys-tarfile $deb | tar -x --keep-directory-symlink -C"
                f" {shlex.quote(str(work))}; done"
            )
            subprocess.run(["sh", "-euc", script], check=True)
            compile_all(work / "usr" / "lib" / "python3.11")
        finally:
            shutil.rmtree(debs, ignore_errors=True)

    return cached(f"{SUITE}-arm64", SUITE, make)


@pytest.fixture(scope="module")
def libraries(root: Path) -> Path:
    """The agent's dependencies as wheels for arm64, pinned as on a board."""
    pins = root / "constraints" / "default.txt"
    needed = [
        one for one in importlib.metadata.requires("fer-agent") or () if "extra ==" not in one
    ]

    def make(work: Path) -> None:
        target: list[object] = ["--target", work, "--only-binary=:all:", "--constraint", pins]
        target += ["--python-version", PYTHON, "--implementation", "cp"]
        for platform in PLATFORMS:
            target += ["--platform", platform]
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-input"]
        fetch([*pip, "--no-compile", *target, *needed])
        compile_all(work)

    recipe = [pins.read_text(), *needed, PYTHON, *PLATFORMS]
    return cached("arm64-wheels", "\n".join(recipe), make)


@pytest.fixture(scope="module")
def board(
    root: Path,
    debian: Path,
    libraries: Path,
    require_program: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., str]:
    """A function that runs Python of the arm64 Debian with the agent's wheel; returns stdout."""
    qemu, unshare = require_program("qemu-aarch64-static"), require_program("unshare")
    folder = tmp_path_factory.mktemp("arm64")
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", folder, root]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("fer_agent-*.whl")
    agent = folder / "agent"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(agent)
    compile_all(agent)
    enter = [unshare, "--user", "--map-root-user", "--mount"]
    enter += ["sh", "-c", ENTER, "sh", debian, QEMU % qemu, libraries, agent, debian]
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/tmp",
        "PYTHONPATH": "/opt/agent:/opt/libraries",
        "FER_AGENT__DETECTOR__BACKEND": "haar",
    }

    def run(*arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            [*enter, "/usr/bin/python3", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=RUN_TIMEOUT_S,
        )
        if check:
            assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout + ("" if check else done.stderr)

    first = run("-c", "import platform; print(platform.machine())", check=False)
    if "binfmt_misc" in first or "unshare" in first:
        pytest.skip(f"the kernel lends no binfmt_misc to a user namespace: {first.strip()}")
    assert first.strip() == "aarch64"
    return run


def test_models_compute_there_what_they_compute_here(board: Callable[..., str]) -> None:
    model = find_model(NAME)
    inputs = golden.of_model(model).input
    there: dict[str, Any] = json.loads(board("-c", LOGITS))
    assert set(there) == {file.precision for file in model.manifest.files}
    for precision, rows in there.items():
        here = OnnxSession(model.verified_file(precision)).run(inputs)["logits"]
        apart = np.abs(np.array(rows, np.float32) - here).max()
        # An x86-64 computes FP16 in FP32, an arm64 in FP16.
        half = golden.TOLERANCES["fp16"].relative_difference * np.abs(here).max()
        assert apart < (half if precision == "fp16" else 1e-3), f"{precision} is off by {apart}"
        assert np.array_equal(np.argmax(rows, axis=1), here.argmax(axis=1)), precision


def test_bench_measures_there(board: Callable[..., str]) -> None:
    options = ["--runs", "5", "--threads", "1", "--faces", "1", "--json"]
    report = json.loads(board("-m", "fer_agent.cli", "bench", *options))
    jsonschema.validate(report, schema.documents()["result.schema.json"])
    assert report["machine"]["architecture"] == "aarch64"
    assert {one["subject"]["precision"] for one in report["networks"]} == {"fp32", "fp16", "int8"}
    assert all(one["latency_ms"]["n"] == 5 for one in report["networks"])
    (pipeline,) = report["pipelines"]
    assert pipeline["faces_seen"] == 1.0
    assert {"capture", "detect", "track", "crop", "classify", "smooth"} <= set(
        pipeline["stages_ms"]
    )
