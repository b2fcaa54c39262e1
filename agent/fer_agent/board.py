"""What the machine says about itself; a figure that cannot be read is None, never zero."""

from __future__ import annotations

import contextlib
import platform
import resource
from pathlib import Path

_PI_THROTTLED_NOW_BITS = 0xF
"""get_throttled: under-voltage, frequency capped, throttled, soft temperature limit, now."""


_CPU_LINES = ("model name", "flags", "CPU part", "Features")
"""Of /proc/cpuinfo, on x86-64 and on arm64."""


def model_name() -> str:
    """Return the board's name from its device tree, or the machine type."""
    for path in ("/proc/device-tree/model", "/sys/class/dmi/id/product_name"):
        with contextlib.suppress(OSError):
            if name := Path(path).read_text(encoding="utf-8", errors="replace").strip("\0 \n"):
                return name
    return platform.machine()


def instruction_sets(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return what decides which machine code runs here, and how well: architecture and features."""
    lines = [platform.machine()]
    with contextlib.suppress(OSError):
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
        lines += sorted({line for line in text.splitlines() if line.startswith(_CPU_LINES)})
    return "\n".join(lines)


def temperature_c(zones: Path = Path("/sys/class/thermal")) -> float | None:
    """Return the hottest thermal zone in degrees Celsius; None where none can be read."""
    readings = []
    for path in zones.glob("thermal_zone*/temp"):
        with contextlib.suppress(OSError, ValueError):
            readings.append(int(path.read_text(encoding="ascii")) / 1000)
    return max(readings, default=None)


def throttled(
    firmware: Path = Path("/sys/devices/platform/soc/soc:firmware/get_throttled"),
) -> bool | None:
    """Tell whether a Raspberry Pi is slowed down now; None on other boards."""
    try:
        bits = int(firmware.read_text(encoding="ascii"), 16)
    except (OSError, ValueError):
        return None
    return bool(bits & _PI_THROTTLED_NOW_BITS)


def resident_bytes() -> int:
    """Return this process's resident memory in bytes, shared pages included."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * resource.getpagesize()


def private_dirty_bytes() -> int | None:
    """Return the memory that only this process has and has written; None without smaps_rollup."""
    try:
        for line in Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Private_Dirty:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
