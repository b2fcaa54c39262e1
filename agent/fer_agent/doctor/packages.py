"""Findings about Python packages: those that cannot be imported or do not fit the system."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import sysconfig
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from fer_agent.config.model import AgentConfig
from fer_agent.doctor.finding import Finding, reinstall_command

IMPORTS = ("numpy", "cv2", "onnxruntime", "paho.mqtt.client")
SYSTEM_PACKAGES = Path("/usr/lib/python3/dist-packages")
_IMPORT_TIMEOUT_S = 120.0
_ILLEGAL_INSTRUCTION = -4


def examine(imports: Sequence[str]) -> Iterator[Finding]:
    """Import each package in a child process, which a wrong wheel may kill."""
    yield from _two_opencvs()
    for name in imports:
        yield from examine_import(name)


def examine_import(name: str) -> Iterator[Finding]:
    """Import one package in a child process."""
    code = f"import {name}"
    if name == "onnxruntime":
        code += "; assert 'CPUExecutionProvider' in onnxruntime.get_available_providers()"
    status, said = run_python(code)
    if status is None:
        yield Finding(
            "package-hangs", f"importing {name} does not end", "restart the device", "sudo reboot"
        )
    elif status == _ILLEGAL_INSTRUCTION:
        yield Finding(
            "package-illegal-instruction",
            f"{name} has instructions that this processor does not know",
            "make the environment anew with a release that has an older wheel of it, and report "
            "the board's model",
            reinstall_command(),
        )
    elif status != 0:
        broken = "runtime-provider" if "AssertionError" in said else "package-broken"
        yield Finding(
            broken,
            f"{name} cannot be imported: {said}",
            "make the environment anew",
            reinstall_command(),
        )


def examine_runtimes(config: AgentConfig) -> Iterator[Finding]:
    """Import TensorRT where the configuration asks for it."""
    if "tensorrt" not in (config.classifier.runtime, config.detector.runtime):
        return
    status, said = run_python("import tensorrt, pycuda.driver; pycuda.driver.init()")
    if status != 0:
        yield Finding(
            "runtime-provider",
            f"`runtime` is tensorrt, which cannot be used: {said or 'its import does not end'}",
            "install JetPack's components, or set `runtime` to auto",
            "sudo apt-get install nvidia-jetpack",
        )


def examine_picamera2() -> Iterator[Finding]:
    """Compare this interpreter with the one of the system's camera library."""
    built = sorted((SYSTEM_PACKAGES / "libcamera").glob("_libcamera.*.so"))
    abi = sysconfig.get_config_var("SOABI")
    if built and not any(f".{abi}." in path.name for path in built):
        yield Finding(
            "picamera2-abi",
            f"this Python ({abi}) cannot load the system's libcamera, which is built for "
            f"{built[0].name.split('.')[1]}",
            "make the environment anew with the system's own /usr/bin/python3",
            reinstall_command(),
        )


def run_python(code: str) -> tuple[int | None, str]:
    """Run code in another Python process.

    Returns:
        Its exit status, negative for a signal, None when it did not end; and its last line.
    """
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter, our own code
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=False,
            timeout=_IMPORT_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return None, ""
    said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return done.returncode, said[-1] if said else "no reason given"


def _two_opencvs() -> Iterator[Finding]:
    """Find folders with two distributions of OpenCV."""
    folders: defaultdict[str, set[str]] = defaultdict(set)
    for one in importlib.metadata.distributions():
        name = (one.metadata["Name"] or "").lower().replace("_", "-")
        if name.startswith("opencv-"):
            folders[str(one.locate_file(""))].add(name)
    for names in folders.values():
        if len(names) > 1:
            yield Finding(
                "opencv-twice",
                f"{' and '.join(sorted(names))} are both installed and overwrite each other's "
                "files",
                "make the environment anew, with opencv-python-headless alone",
                reinstall_command(),
            )
