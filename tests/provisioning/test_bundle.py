from __future__ import annotations

import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from fer_agent.errors import UsageError
from fer_provisioning import layout
from fer_provisioning.board import BoardKind, TargetBoard
from fer_provisioning.bundle import (
    Bundler,
    copy_units,
    missing_requirements,
    platform_tags,
    wheel_version,
)

if TYPE_CHECKING:
    from pathlib import Path

PI = TargetBoard(
    kind=BoardKind.PI,
    name="a Pi",
    python=(3, 11),
    architecture="aarch64",
    libc=(2, 36),
    systemd=252,
    constraints="bookworm-pi",
)


JETSON = TargetBoard(BoardKind.JETSON, "", (3, 10), "aarch64", (2, 35), 249, "py310")


def make_wheel(
    path: Path, name: str = "fer-agent", version: str = "1.2.3", needs: tuple[str, ...] = ()
) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        metadata += "".join(f"Requires-Dist: {need}\n" for need in needs)
        archive.writestr(f"x-{version}.dist-info/METADATA", metadata)
    return path


def test_version_is_read_from_the_wheel(tmp_path: Path) -> None:
    assert wheel_version(make_wheel(tmp_path / "fer_agent-1.2.3-py3-none-any.whl")) == "1.2.3"


def test_what_is_no_wheel_of_ours_is_refused(tmp_path: Path) -> None:
    other = make_wheel(tmp_path / "numpy.whl", name="numpy")
    text = tmp_path / "text.whl"
    text.write_text("text")
    for path, said in [(other, "of numpy"), (text, "no wheel"), (tmp_path / "none", "no wheel")]:
        with pytest.raises(UsageError, match=said):
            wheel_version(path)


def test_platforms_go_from_the_boards_glibc_down() -> None:
    tags = platform_tags(PI)
    assert tags[0] == "manylinux_2_36_aarch64"
    assert "manylinux_2_17_aarch64" in tags
    assert tags[-2:] == ["manylinux2014_aarch64", "linux_aarch64"]


def test_conditions_of_requirements_are_read_as_the_board_would(tmp_path: Path) -> None:
    agent = make_wheel(
        tmp_path / "fer_agent-1.whl",
        needs=(
            "tomli>=2; python_version < '3.11'",
            "colorama; sys_platform == 'win32'",
            "fast; platform_machine == 'aarch64'",
            "Some_Package[extra]",
            "pyinfra; extra == 'provision'",
        ),
    )
    some = make_wheel(
        tmp_path / "some.whl", name="some-package", needs=("more<3; extra == 'extra'",)
    )
    assert missing_requirements(JETSON, [agent, some], []) == ["fast", "more<3", "tomli>=2"]
    assert missing_requirements(PI, [agent, some], ["provision"]) == ["fast", "more<3", "pyinfra"]


def test_boards_that_differ_in_their_names_alone_get_one_release() -> None:
    assert replace(PI, name="another Pi") == PI


def test_release_is_named_by_all_it_is_made_of(tmp_path: Path) -> None:
    one = make_wheel(tmp_path / "fer_agent-1.2.3-py3-none-any.whl")
    two = make_wheel(tmp_path / "fer_agent-1.2.4-py3-none-any.whl", version="1.2.4")
    ids = []
    for wheel in (one, one, two):
        bundler = Bundler(wheel=wheel, offline=True, say=lambda _: None)
        ids.append(bundler.release(PI).id)
        bundler.close()
    assert ids[0] == ids[1]
    assert ids[0].startswith("1.2.3-")
    assert ids[2].startswith("1.2.4-")


def test_every_file_a_board_may_need_is_there() -> None:
    for board in (PI, replace(JETSON, systemd=257)):
        assert (layout.constraints_folder() / f"{board.constraints}.txt").is_file()
        for name in (layout.UNIT, *board.dropins, *board.sync_dropins):
            assert (layout.units_folder() / name).is_file()


def test_drop_ins_of_each_unit_are_in_separate_folders(tmp_path: Path) -> None:
    copied = {}
    for board in (PI, JETSON):
        folder = tmp_path / board.kind.value
        folder.mkdir()
        copy_units(board, folder)
        copied[board.kind] = {
            str(path.relative_to(folder))
            for path in folder.rglob("10-*")
            if "growing" not in path.name
        }
    assert copied[PI.kind] == {"10-pi.conf"}
    sync = f"{layout.SYNC_UNIT}.d/10-jetson-sync.conf"
    assert copied[JETSON.kind] == {"10-jetson.conf", sync}
