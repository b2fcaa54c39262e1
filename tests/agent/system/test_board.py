"""Board states as a Pi, a Jetson, a PC and a locked-down machine show them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from fer_agent.system import board
from fer_agent.system.board import BoardState, read_state, was_throttled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CPUFREQ = "sys/devices/system/cpu/cpufreq"
FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., Path]:
    """A function that lays down the kernel's files and returns their root."""

    def write(contents: dict[str, str]) -> Path:
        for name, content in contents.items():
            (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "root" / name).write_text(content + "\n")
        return tmp_path / "root"

    return write


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """A function that installs a vendor's program; without a call none is there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    shell_and_sleep = os.environ["PATH"]
    monkeypatch.setenv("PATH", str(folder))

    def install(name: str, script: str) -> None:
        path = folder / name
        path.write_text(f"#!/bin/sh\nPATH={shell_and_sleep}\n{script}\n")
        path.chmod(0o755)

    return install


def test_what_nobody_tells_is_unknown_and_not_zero(
    files: Callable[..., Path], program: Callable[[str, str], None]
) -> None:
    assert read_state(files({})) == BoardState()


def test_a_pi_by_its_kernel_and_its_firmware(
    files: Callable[..., Path], program: Callable[[str, str], None]
) -> None:
    program("vcgencmd", 'case "$1" in measure_clock) echo "frequency(48)=1500345728";; esac')
    root = files(
        {
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
            "sys/class/thermal/thermal_zone0/temp": "81277",
            f"{CPUFREQ}/policy0/scaling_cur_freq": "1800000",
            f"{CPUFREQ}/policy0/cpuinfo_max_freq": "1800000",
            f"{CPUFREQ}/policy0/scaling_governor": "ondemand",
            FIRMWARE: "e0008",
        }
    )
    state = read_state(root)
    assert state == BoardState(
        temperature_c=81.277,
        sensors_c={"cpu-thermal": 81.277},
        clock_mhz=1500.345728,
        clock_max_mhz=1800.0,
        governor="ondemand",
        throttled=True,
        throttled_since_boot=True,
        throttle_reasons=("soft temperature limit",),
    )


def test_a_pi_whose_kernel_files_are_hidden_is_asked_by_program(
    files: Callable[..., Path], program: Callable[[str, str], None]
) -> None:
    program(
        "vcgencmd",
        'case "$1" in measure_temp) echo "temp=47.2\'C";; get_throttled) echo throttled=0x50000;;'
        " *) exit 1;; esac",
    )
    state = read_state(files({}))
    assert state.temperature_c == 47.2
    assert (state.throttled, state.throttled_since_boot) == (False, True)
    assert state.clock_mhz is None


def test_a_jetson_by_tegrastats_and_nvpmodel(
    files: Callable[..., Path], program: Callable[[str, str], None]
) -> None:
    program(
        "tegrastats",
        "while :; do echo '11-24-2026 RAM 2448/7620MB CPU [1%@729,off] GR3D_FREQ 0%@[305] "
        "cpu@48.5C soc2@47.125C tj@49C'; sleep 0.1; done",
    )
    program("nvpmodel", "echo 'NV Power Mode: 15W'; echo 0")
    root = files(
        {
            "sys/class/devfreq/17000000.gpu/cur_freq": "305000000",
            "sys/class/hwmon/hwmon1/oc1_event_cnt": "3",
            "sys/class/hwmon/hwmon1/oc3_event_cnt": "1",
        }
    )
    state = read_state(root)
    assert state.sensors_c == {"cpu": 48.5, "soc2": 47.125, "tj": 49.0}
    assert state.temperature_c == 49.0
    assert state.gpu_clock_mhz == 305.0
    assert state.power_mode == "15W"
    assert state.throttle_events == 4
    assert state.throttled is None


def test_a_sensor_that_refuses_leaves_the_others(
    files: Callable[..., Path], program: Callable[[str, str], None]
) -> None:
    root = files(
        {
            "sys/class/thermal/thermal_zone0/temp": "broken",
            "sys/class/thermal/thermal_zone1/temp": "39000",
            f"{CPUFREQ}/policy0/scaling_cur_freq": "",
            f"{CPUFREQ}/policy4/scaling_cur_freq": "1190400",
            f"{CPUFREQ}/policy0/scaling_governor": "schedutil",
            f"{CPUFREQ}/policy4/scaling_governor": "performance",
        }
    )
    state = read_state(root)
    assert state.sensors_c == {"thermal_zone1": 39.0}
    assert state.clock_mhz == 1190.4
    assert state.clock_max_mhz is None
    assert state.governor == "performance, schedutil"


@pytest.mark.parametrize(
    ("before", "after", "throttled"),
    [
        (BoardState(), BoardState(), None),
        (BoardState(throttle_events=4), BoardState(throttle_events=4), False),
        (BoardState(throttle_events=4), BoardState(throttle_events=5), True),
        (BoardState(throttled=False), BoardState(throttled=True), True),
        (
            BoardState(throttled=False, throttled_since_boot=True),
            BoardState(throttled=False, throttled_since_boot=True),
            False,
        ),
        (
            BoardState(throttled=False, throttled_since_boot=False),
            BoardState(throttled=False, throttled_since_boot=True),
            True,
        ),
    ],
)
def test_throttling_between_two_readings(
    before: BoardState, after: BoardState, throttled: bool | None
) -> None:
    assert was_throttled(before, after) is throttled


def test_this_machine_answers() -> None:
    state = read_state()
    assert state.temperature_c is None or -40 < state.temperature_c < 130
    assert state.clock_mhz is None or state.clock_mhz > 10


def test_every_board_has_a_name() -> None:
    assert board.model_name()


def test_instruction_sets_are_the_same_for_cores_that_are_alike(tmp_path: Path) -> None:
    core = "processor : {}\nmodel name : A\ncpu MHz : {}\nflags : fpu avx2\n\n"
    (tmp_path / "two").write_text(core.format(0, 800) + core.format(1, 2400))
    (tmp_path / "one").write_text(core.format(0, 900))
    (tmp_path / "less").write_text(core.format(0, 900).replace(" avx2", ""))
    two, one, less = (board.instruction_sets(tmp_path / name) for name in ("two", "one", "less"))
    assert two == one != less
    assert board.instruction_sets(tmp_path / "missing")
