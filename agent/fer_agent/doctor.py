"""What `fer-agent doctor` checks: everything a running agent needs, and what mends each finding."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import ssl
import subprocess
import sys
import sysconfig
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fer_agent import board, board_commands, clock, config_file, doctor_camera, model_store
from fer_agent.detector.yunet_file import YUNET
from fer_agent.errors import AgentError
from fer_agent.model_choice.resolve import resolve
from fer_agent.mqtt.settings import BrokerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fer_agent.config import AgentConfig

SCHEMA_VERSION: Final = 1

_BROKER_TIMEOUT_S = 5.0
_MIN_FREE_BYTES = 200 << 20
"""Room for another model, its engine and a day's spool."""
_HOT_C = 80.0
"""Raspberry Pi and Jetson slow themselves down from here on."""
_CREDENTIALS = Path("/etc/fer-agent/credentials")
_SYSTEM_PACKAGES = Path("/usr/lib/python3/dist-packages")
_IMPORTS = ("numpy", "cv2", "onnxruntime", "paho.mqtt.client")
_IMPORT_TIMEOUT_S = 120.0
_ILLEGAL_INSTRUCTION = -4


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, or soon will be.

    Attributes:
        id: names the kind of finding; stays the same from version to version.
        cause: what was found, with the value, in one sentence.
        remedy: the command or step that mends it.
    """

    id: str
    cause: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was checked, and what was found."""

    checked: tuple[str, ...]
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report for `--json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "checked": list(self.checked),
            "findings": [asdict(finding) for finding in self.findings],
        }


def examine(path: Path | None) -> Report:
    """Check this machine and its configuration.

    Args:
        path: configuration file; None looks in the usual places.
    """
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "packages": _packages,
        "picamera2": _picamera2,
        "temperature": _temperature,
        "service": _service,
    }
    findings: list[Finding] = []
    if os.access(_CREDENTIALS, os.R_OK | os.X_OK):
        # Root sees the files that systemd hands to the service.
        os.environ.setdefault("CREDENTIALS_DIRECTORY", str(_CREDENTIALS))
    try:
        config = config_file.load(path)
    except AgentError as error:
        findings.append(Finding("config-invalid", str(error), error.remedy))
    else:
        checks |= {
            "cameras": lambda: _cameras(config),
            "models": lambda: _models(config),
            "broker": lambda: _broker(config),
            "disk": lambda: _disk(config),
        }
    for check in checks.values():
        findings += check()
    return Report(("config", *checks), tuple(findings))


def _packages() -> Iterator[Finding]:
    """Import each package in a process of its own: a wrong wheel kills the process that tries."""
    names = {
        name
        for one in importlib.metadata.distributions()
        if (name := (one.metadata["Name"] or "").lower().replace("_", "-")).startswith("opencv-")
    }
    if len(names) > 1:
        yield Finding(
            "opencv-twice",
            f"{' and '.join(sorted(names))} are both installed and overwrite each other's files",
            f"{sys.executable} -m pip uninstall -y {' '.join(sorted(names))} && "
            f"{sys.executable} -m pip install opencv-python-headless",
        )
    for name in _IMPORTS:
        yield from _import(name)


def _import(name: str) -> Iterator[Finding]:
    command = [sys.executable, "-c", f"import {name}"]
    if name == "onnxruntime":
        command[-1] += "; assert 'CPUExecutionProvider' in onnxruntime.get_available_providers()"
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter, fixed names
            command, capture_output=True, text=True, check=False, timeout=_IMPORT_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        yield Finding("package-hangs", f"importing {name} does not end", "sudo reboot")
        return
    if done.returncode == _ILLEGAL_INSTRUCTION:
        yield Finding(
            "package-illegal-instruction",
            f"{name} has instructions that this processor does not know",
            "install an older version of it, and report the board's model",
        )
    elif done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        broken = "runtime-provider" if "AssertionError" in said else "package-broken"
        yield Finding(broken, f"{name} cannot be imported: {said}", "sudo fer-agent upgrade")


def _picamera2() -> Iterator[Finding]:
    """Compare the interpreter with the one that the system's camera library is built for."""
    built = sorted((_SYSTEM_PACKAGES / "libcamera").glob("_libcamera.*.so"))
    abi = sysconfig.get_config_var("SOABI")
    if built and not any(f".{abi}." in path.name for path in built):
        yield Finding(
            "picamera2-abi",
            f"this Python ({abi}) cannot load the system's libcamera, which is built for "
            f"{built[0].name.split('.')[1]}",
            "make the environment with the system's own /usr/bin/python3",
        )


def _cameras(config: AgentConfig) -> Iterator[Finding]:
    for name, section in config.camera.items():
        if section.enabled:
            problem = doctor_camera.examine(name, section.source)
            if problem is not None:
                yield Finding(*problem)


def _models(config: AgentConfig) -> Iterator[Finding]:
    store = config.models.path or model_store.default_store()
    try:
        model = model_store.find(config.classifier.model, store)
        model.verified_file(resolve(config.classifier, model.manifest, store).precision)
    except AgentError as error:
        yield Finding("model-unusable", str(error), error.remedy)

    file = config.detector.model_file
    own = store / "detectors" / YUNET.name
    if file is not None and not file.is_file():
        yield Finding("detector-missing", f"no face detector at {file}", "correct the path")
    elif file is None and own.is_file():
        try:
            model_store.verify_file(own, sha256=YUNET.sha256, size_bytes=YUNET.size_bytes)
        except AgentError as error:
            yield Finding("detector-broken", str(error), f"sudo rm {own}")


def _broker(config: AgentConfig) -> Iterator[Finding]:
    try:
        settings = BrokerSettings.load(config.mqtt)
    except AgentError as error:
        yield Finding("broker-settings", str(error), error.remedy)
        return
    address = (settings.address.host, settings.address.port)
    try:
        with socket.create_connection(address, timeout=_BROKER_TIMEOUT_S) as connection:
            if settings.tls is not None:
                with settings.tls.wrap_socket(connection, server_hostname=address[0]):
                    pass
    except ssl.SSLCertVerificationError as error:
        if "not yet valid" in error.verify_message or "expired" in error.verify_message:
            yield Finding(
                "tls-clock",
                f"the broker's certificate does not fit this clock: {error.verify_message}",
                "sudo timedatectl set-ntp true; if the clock is right, renew the certificate",
            )
        else:
            yield Finding(
                "tls-chain",
                f"the broker's certificate is not trusted: {error.verify_message}",
                "set `mqtt.ca_file` to the CA that signed it",
            )
    except OSError as error:
        yield Finding(
            "broker-unreachable",
            f"the broker at {settings} does not answer: {error.strerror or error}",
            "fer-agent mqtt test",
        )
    if settings.tls is not None and clock.clock_synced() is False:
        yield Finding(
            "clock-unsynced",
            "the clock is not kept by NTP, and TLS needs it right",
            "sudo timedatectl set-ntp true",
        )


def _disk(config: AgentConfig) -> Iterator[Finding]:
    folder = config.models.path or model_store.default_store()
    while not folder.exists():
        folder = folder.parent
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < _MIN_FREE_BYTES:
        yield Finding(
            "disk-low",
            f"{free_bytes >> 20} MiB are free under {folder}",
            "sudo apt-get clean && sudo journalctl --vacuum-size=50M",
        )


def _temperature() -> Iterator[Finding]:
    celsius = board.temperature_c()
    if celsius is not None and celsius >= _HOT_C:
        yield Finding(
            "too-hot", f"the processor is at {celsius:.0f} °C", "fit a heat sink or a fan"
        )
    if board.throttled():
        yield Finding(
            "throttled",
            "the board slows itself down, for want of power or from heat",
            "vcgencmd get_throttled; use the board's own power supply",
        )


def _service() -> Iterator[Finding]:
    try:
        status = board_commands.service_status()
    except AgentError:
        return  # no systemd: nothing is installed that could be down
    if status["installed"] and status["service"] != "active":
        yield Finding(
            "service-down",
            f"the service is {status['service']}: {status['result']} {status['exit_status']}",
            "fer-agent logs",
        )
