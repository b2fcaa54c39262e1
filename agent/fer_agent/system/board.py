"""The board's name, processor, temperatures, clocks and throttling.

A figure that cannot be read is None, never zero. The kernel's files come first, then the vendor's
programs: `vcgencmd` on a Raspberry Pi, `tegrastats` and `nvpmodel` on a Jetson.
"""

from __future__ import annotations

import contextlib
import platform
import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_PI_FLAGS: Final = {
    0: "under-voltage",
    1: "frequency capped",
    2: "throttled",
    3: "soft temperature limit",
}
"""Bits of `get_throttled` for now; the same 16 higher are since boot. Source: Raspberry Pi's
documentation of vcgencmd."""

_PI_SINCE_BOOT_SHIFT: Final = 16

_CPU_LINES: Final = ("model name", "flags", "CPU part", "Features")
"""Of /proc/cpuinfo, on x86-64 and on arm64."""

_PROGRAM_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class BoardState:
    """Temperatures, clocks and throttling at one moment.

    Attributes:
        temperature_c: the hottest sensor.
        sensors_c: every sensor that can be read, by the kernel's or the vendor's name.
        clock_mhz: the fastest core now.
        clock_max_mhz: the processor's highest clock.
        governor: the clock's governor; several names where cores differ.
        gpu_clock_mhz: a Jetson's graphics clock now.
        power_mode: a Jetson's power mode, such as 15W.
        throttled: whether the board is throttled now.
        throttled_since_boot: whether it was at any time since boot.
        throttle_reasons: the reasons now.
        throttle_events: count of the processor's own counters since boot.
    """

    temperature_c: float | None = None
    sensors_c: dict[str, float] | None = None
    clock_mhz: float | None = None
    clock_max_mhz: float | None = None
    governor: str | None = None
    gpu_clock_mhz: float | None = None
    power_mode: str | None = None
    throttled: bool | None = None
    throttled_since_boot: bool | None = None
    throttle_reasons: tuple[str, ...] = ()
    throttle_events: int | None = None


def model_name() -> str:
    """Return the board's name from its device tree, or the machine type."""
    for path in ("/proc/device-tree/model", "/sys/class/dmi/id/product_name"):
        with contextlib.suppress(OSError):
            if name := Path(path).read_text(encoding="utf-8", errors="replace").strip("\0 \n"):
                return name
    return platform.machine()


def instruction_sets(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the architecture and the features of the cores."""
    lines = [platform.machine()]
    with contextlib.suppress(OSError):
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
        lines += sorted({line for line in text.splitlines() if line.startswith(_CPU_LINES)})
    return "\n".join(lines)


def read_state(root: Path = Path("/")) -> BoardState:
    """Read all figures of this board; takes up to a second on a Jetson.

    Args:
        root: folder of the kernel's files.
    """
    cores = root / "sys/devices/system/cpu"
    governors = {_text(path) for path in cores.glob("cpufreq/policy*/scaling_governor")}
    return replace(
        read_heat(root),
        clock_mhz=_pi_clock_mhz() or _highest_mhz(cores, "scaling_cur_freq"),
        clock_max_mhz=_highest_mhz(cores, "cpuinfo_max_freq"),
        governor=", ".join(sorted(name for name in governors if name)) or None,
        gpu_clock_mhz=_gpu_clock_mhz(root),
        power_mode=_power_mode(),
    )


def read_heat(root: Path = Path("/")) -> BoardState:
    """Read temperatures and throttling only, from files or, without those, short programs.

    Args:
        root: folder of the kernel's files.
    """
    sensors = _sensors(root) or _pi_sensor() or _jetson_sensors()
    flags = _pi_flags(root)
    return BoardState(
        temperature_c=max(sensors.values(), default=None),
        sensors_c=sensors or None,
        throttled=None if flags is None else bool(_reasons(flags)),
        throttled_since_boot=None if flags is None else bool(flags >> _PI_SINCE_BOOT_SHIFT),
        throttle_reasons=() if flags is None else _reasons(flags),
        throttle_events=_throttle_events(root),
    )


def was_throttled(before: BoardState, after: BoardState) -> bool | None:
    """Tell whether the board was throttled between two readings; None where unknown."""
    answers: list[bool] = []
    if before.throttled is not None and after.throttled is not None:
        began = bool(after.throttled_since_boot) and not before.throttled_since_boot
        answers.append(before.throttled or after.throttled or began)
    if before.throttle_events is not None and after.throttle_events is not None:
        answers.append(after.throttle_events > before.throttle_events)
    return any(answers) if answers else None


def _sensors(root: Path) -> dict[str, float]:
    return {
        _text(zone / "type") or zone.name: value / 1000
        for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*"))
        if (value := _number(zone / "temp")) is not None
    }


def _pi_sensor() -> dict[str, float]:
    said = re.search(r"temp=(-?[\d.]+)", _ask("vcgencmd", "measure_temp") or "")
    return {"vcgencmd": float(said[1])} if said else {}


def _jetson_sensors() -> dict[str, float]:
    """Read `tegrastats`, which prints a line each interval until it is stopped."""
    line = _first_line("tegrastats", "--interval", "100") or ""
    return {name: float(value) for name, value in re.findall(r"(\w+)@(-?\d+(?:\.\d+)?)C", line)}


def _pi_flags(root: Path) -> int | None:
    """Return the bits of `get_throttled` from the kernel or the firmware's program."""
    said = _text(root / "sys/devices/platform/soc/soc:firmware/get_throttled")
    if said is None:
        said = (_ask("vcgencmd", "get_throttled") or "").partition("=")[2]
    try:
        return int(said, 16)
    except ValueError:
        return None


def _reasons(flags: int) -> tuple[str, ...]:
    return tuple(name for bit, name in _PI_FLAGS.items() if flags >> bit & 1)


def _pi_clock_mhz() -> float | None:
    """Return the real clock of a Pi's cores; the kernel there knows only the requested one."""
    said = re.search(r"=(\d+)", _ask("vcgencmd", "measure_clock", "arm") or "")
    return int(said[1]) / 1e6 if said and int(said[1]) else None


def _highest_mhz(cores: Path, file: str) -> float | None:
    clocks = _numbers(cores.glob(f"cpufreq/policy*/{file}"))
    return max(clocks) / 1000 if clocks else None


def _gpu_clock_mhz(root: Path) -> float | None:
    clocks = _numbers(sorted((root / "sys/class/devfreq").glob("*gpu*/cur_freq")))
    return clocks[0] / 1e6 if clocks else None


def _power_mode() -> str | None:
    said = re.search(r"NV Power Mode:\s*(\S+)", _ask("nvpmodel", "-q") or "")
    return said[1] if said else None


def _throttle_events(root: Path) -> int | None:
    """Add up the counters of x86 cores and of a Jetson's over-current alarms."""
    cores = root / "sys/devices/system/cpu"
    counts = _numbers(cores.glob("cpu[0-9]*/thermal_throttle/core_throttle_count"))
    counts += _numbers((root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt"))
    return sum(counts) if counts else None


def _numbers(paths: Iterable[Path]) -> list[int]:
    return [value for path in paths if (value := _number(path)) is not None]


def _number(path: Path) -> int | None:
    try:
        return int(_text(path) or "")
    except ValueError:
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def _ask(program: str, *arguments: str) -> str | None:
    """Return the output of a vendor's program, None where it is missing or fails."""
    try:
        done = subprocess.run(  # noqa: S603  a fixed command
            [program, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=_PROGRAM_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _first_line(program: str, *arguments: str) -> str | None:
    """Return the first line of a program that prints until it is stopped."""
    try:
        with subprocess.Popen(  # noqa: S603  a fixed command
            [program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            try:
                return process.stdout.readline() if process.stdout else None
            finally:
                process.terminate()
    except OSError:
        return None
