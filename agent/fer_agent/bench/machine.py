"""The machine of a measurement: board, processor, system and runtimes."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Final

from fer_agent.bench.record import Machine
from fer_agent.bench.subjects import usable_cores
from fer_agent.inference import available
from fer_agent.system import board

_ARM_CORES: Final = {
    0xD03: "Cortex-A53",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD0B: "Cortex-A76",
    0xD41: "Cortex-A78",
    0xD42: "Cortex-A78AE",
}
"""Part numbers of /proc/cpuinfo, implementer 0x41. Source: Arm's technical reference manuals."""


def describe() -> Machine:
    """Describe this machine."""
    return Machine(
        board=board.model_name(),
        processor=processor(),
        architecture=platform.machine(),
        cores=usable_cores(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        os=_system(),
        python=platform.python_version(),
        runtimes={name: available.version(name) for name in available.available()},
        load_before=round(os.getloadavg()[0], 2),
    )


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """Return the processor's name; several where cores differ; None where unknown."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    if names := sorted(set(re.findall(r"^model name\s*:\s*(.+)$", text, re.MULTILINE))):
        return ", ".join(names)
    parts = sorted(set(re.findall(r"^CPU part\s*:\s*(0x[0-9a-f]+)$", text, re.MULTILINE)))
    return ", ".join(_ARM_CORES.get(int(part, 16), f"Arm part {part}") for part in parts) or None


def _system() -> str:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return platform.platform()
    return f"{release.get('PRETTY_NAME', 'Linux')}, kernel {platform.release()}"
