"""The checks of `fer-agent doctor`, and its report."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fer_agent.config import loading
from fer_agent.config.model import AgentConfig
from fer_agent.doctor import broker, camera, packages
from fer_agent.doctor.finding import Finding, edit_command, reinstall_command
from fer_agent.errors import AgentError
from fer_agent.measure.resolve import resolve
from fer_agent.models.store import find_model, model_names, verify_file
from fer_agent.system import board, installed_service
from fer_agent.updates.detector_file import YUNET

_MIN_FREE_BYTES = 200 << 20
"""Enough for another model, its engine and a day's spool."""
_HOT_C = 80.0
"""Raspberry Pi and Jetson slow themselves down from here on."""
_CREDENTIALS = Path("/etc/fer-agent/credentials")


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """The checks and their findings."""

    checked: tuple[str, ...]
    findings: tuple[Finding, ...]


def examine(path: Path | None, *, imports: Sequence[str] = packages.IMPORTS) -> DoctorReport:
    """Check this machine and its configuration.

    Args:
        path: configuration file; None looks in the usual places.
        imports: the packages to import, each in a process; seconds for each.
    """
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "packages": lambda: packages.examine(imports),
        "picamera2": packages.examine_picamera2,
        "temperature": _temperature,
        "service": _service,
    }
    findings: list[Finding] = []
    if os.access(_CREDENTIALS, os.R_OK | os.X_OK):
        # Root can read the files that systemd gives to the service.
        os.environ.setdefault("CREDENTIALS_DIRECTORY", str(_CREDENTIALS))
    found = path or loading.usual_file(os.environ)
    file = found or loading.default_places(os.environ)[0]
    try:
        config = loading.load(path)
    except AgentError as error:
        findings.append(_no_config(error, found, file))
    else:
        checks |= {
            "cameras": lambda: camera.examine_all(config, file),
            "models": lambda: _models(config, file),
            "runtimes": lambda: packages.examine_runtimes(config),
            "broker": lambda: broker.examine(config, file),
            "disk": lambda: _disk(config),
        }
    for check in checks.values():
        findings += check()
    return DoctorReport(("config", *checks), tuple(findings))


def _no_config(error: AgentError, found: Path | None, file: Path) -> Finding:
    if isinstance(error.__cause__, PermissionError):
        return Finding("config-forbidden", str(error), "run it as root", "sudo fer-agent doctor")
    if found is None:
        command = f"fer-agent config init {file}"
        return Finding("config-missing", str(error), error.remedy, command)
    return Finding("config-invalid", str(error), error.remedy, edit_command(file))


def _models(config: AgentConfig, file: Path) -> Iterator[Finding]:
    store = config.store
    try:
        model = find_model(config.classifier.model, store)
        model.verified_file(resolve(config.classifier, model.manifest, store).precision)
    except AgentError as error:
        known = config.classifier.model in model_names(store)
        command = reinstall_command() if known else edit_command(file)
        yield Finding("model-unusable", str(error), error.remedy, command)

    detector = config.detector.model_file
    own = store / "detectors" / YUNET.name
    if detector is not None and not detector.is_file():
        yield Finding(
            "detector-missing",
            f"no face detector at {detector}",
            "correct `detector.model_file`",
            edit_command(file),
        )
    elif detector is None and own.is_file():
        try:
            verify_file(own, sha256=YUNET.sha256, size_bytes=YUNET.size_bytes)
        except AgentError as error:
            remedy = "remove it; the agent fetches it anew when it starts"
            restart = f"sudo rm {own} && sudo systemctl restart fer-agent"
            yield Finding("detector-broken", str(error), remedy, restart)


def _disk(config: AgentConfig) -> Iterator[Finding]:
    folder = config.store
    while not folder.exists():
        folder = folder.parent
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < _MIN_FREE_BYTES:
        yield Finding(
            "disk-low",
            f"{free_bytes >> 20} MiB are free under {folder}",
            "free some space",
            "sudo apt-get clean && sudo journalctl --vacuum-size=50M",
        )


def _temperature() -> Iterator[Finding]:
    state = board.read_state()
    if state.temperature_c is not None and state.temperature_c >= _HOT_C:
        yield Finding(
            "too-hot",
            f"the processor is at {state.temperature_c:.0f} °C",
            "fit a heat sink or a fan, then switch on again",
            "sudo poweroff",
        )
    if state.throttled:
        why = ", ".join(state.throttle_reasons)
        yield Finding(
            "throttled",
            f"the board slows itself down now: {why}",
            "use the board's own power supply"
            if "under-voltage" in state.throttle_reasons
            else "fit a heat sink or a fan, then switch on again",
            "sudo poweroff",
        )


def _service() -> Iterator[Finding]:
    try:
        status = installed_service.service_status()
    except AgentError:
        return  # no systemd, so no service that could be down
    if status["installed"] and status["service"] != "active":
        yield Finding(
            "service-down",
            f"the service is {status['service']}: {status['result']} {status['exit_status']}",
            "mend the other findings and what `fer-agent logs` says, then start it",
            "sudo systemctl restart fer-agent",
        )
