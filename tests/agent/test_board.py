from __future__ import annotations

from typing import TYPE_CHECKING

from fer_agent import board

if TYPE_CHECKING:
    from pathlib import Path


def test_temperature_is_the_hottest_zone(tmp_path: Path) -> None:
    for number, reading in enumerate(["41000", "52500", "broken"]):
        (tmp_path / f"thermal_zone{number}").mkdir()
        (tmp_path / f"thermal_zone{number}" / "temp").write_text(reading)
    assert board.temperature_c(tmp_path) == 52.5


def test_temperature_that_cannot_be_read_is_none_not_zero(tmp_path: Path) -> None:
    assert board.temperature_c(tmp_path) is None


def test_throttling_now_is_told_from_throttling_that_was(tmp_path: Path) -> None:
    firmware = tmp_path / "get_throttled"
    assert board.throttled(firmware) is None
    firmware.write_text("50000\n")
    assert board.throttled(firmware) is False
    firmware.write_text("50005\n")
    assert board.throttled(firmware) is True


def test_memory_figures_are_of_this_process() -> None:
    private = board.private_dirty_bytes()
    assert private is not None
    assert 1_000_000 < private <= board.resident_bytes()


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
