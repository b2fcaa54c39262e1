from __future__ import annotations

import pytest

from fer_provisioning.board import BoardKind, Probe, TargetBoard, UnsupportedBoardError, identify

DEBIAN = {
    "os_id": "debian",
    "os_codename": "bookworm",
    "os_name": "Debian GNU/Linux 12 (bookworm)",
    "machine": "x86_64",
    "architecture": "amd64",
    "python": "3.11",
    "python_venv": "1",
    "libc": "glibc 2.36",
    "systemd": "252",
    "systemd_runs": "1",
}
PI = DEBIAN | {
    "machine": "aarch64",
    "architecture": "arm64",
    "model": "Raspberry Pi 4 Model B Rev 1.5",
}
OLD_DELAY = "growing-delay-before-254.conf"
UBUNTU = {"os_id": "ubuntu", "os_codename": "jammy", "os_name": "Ubuntu 22.04.5 LTS"}
JETSON = (
    DEBIAN
    | UBUNTU
    | {
        "machine": "aarch64",
        "architecture": "arm64",
        "python": "3.10",
        "libc": "glibc 2.35",
        "systemd": "249",
        "model": "NVIDIA Jetson Orin Nano Developer Kit",
        "tegra": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64",
        "tensorrt": "1",
        "nvcc": "/usr/local/cuda/bin/nvcc",
    }
)


def board(values: dict[str, str]) -> TargetBoard:
    return identify(Probe(values))


@pytest.mark.parametrize(
    ("values", "kind", "constraints", "dropins"),
    [
        (DEBIAN, BoardKind.PLAIN, "default", (OLD_DELAY,)),
        (DEBIAN | {"python": "3.10"}, BoardKind.PLAIN, "py310", (OLD_DELAY,)),
        (PI, BoardKind.PI, "bookworm-pi", ("pi.conf", OLD_DELAY)),
        (
            PI | {"os_codename": "trixie", "python": "3.13", "systemd": "257"},
            BoardKind.PI,
            "default",
            ("pi.conf", "growing-delay.conf"),
        ),
        (JETSON, BoardKind.JETSON, "py310", ("jetson.conf", OLD_DELAY)),
        (
            JETSON | {"tegra": "", "l4t": "38.2.0-20250821174705", "python": "3.12"},
            BoardKind.JETSON,
            "default",
            ("jetson.conf", OLD_DELAY),
        ),
        (
            JETSON | {"tegra": "# R39 (release), REVISION: 1.0", "python": "3.12"},
            BoardKind.JETSON,
            "default",
            ("jetson.conf", OLD_DELAY),
        ),
        (PI | UBUNTU | {"python": "3.12"}, BoardKind.PLAIN, "default", (OLD_DELAY,)),
    ],
    ids=[
        "debian",
        "python3.10",
        "bookworm",
        "trixie",
        "jetpack6",
        "jetpack7",
        "newer-jetpack",
        "ubuntu-on-pi",
    ],
)
def test_board_gets_its_own_way_of_installing(
    values: dict[str, str], kind: BoardKind, constraints: str, dropins: tuple[str, ...]
) -> None:
    found = board(values)
    assert (found.kind, found.constraints, found.dropins) == (kind, constraints, dropins)


def test_only_a_jetson_opens_its_gpu_to_the_sync() -> None:
    assert board(JETSON).sync_dropins == ("jetson-sync.conf",)
    assert board(PI).sync_dropins == board(DEBIAN).sync_dropins == ()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (PI | {"architecture": "armhf"}, "32-bit"),
        (PI | {"architecture": "", "machine": "armv7l"}, "32-bit"),
        (PI | {"os_codename": "bullseye", "python": "3.9"}, "Raspberry Pi OS bullseye"),
        (JETSON | {"tegra": "# R35 (release), REVISION: 5.0", "python": "3.8"}, "JetPack 5"),
        (JETSON | {"tegra": "# R32 (release), REVISION: 7.1", "python": "3.6"}, "JetPack 4"),
        (JETSON | {"tensorrt": ""}, "lacks TensorRT for Python"),
        (JETSON | {"nvcc": ""}, "lacks the CUDA toolkit"),
        (DEBIAN | {"architecture": "riscv64"}, "riscv64"),
        (DEBIAN | {"architecture": "", "os_id": "alpine", "os_name": "Alpine"}, "Alpine"),
        (DEBIAN | {"python": "3.9"}, "its Python is 3.9"),
        (DEBIAN | {"python": ""}, "its Python is missing"),
        (DEBIAN | {"systemd_runs": ""}, "systemd does not run"),
    ],
)
def test_board_that_cannot_run_it_is_refused_with_the_reason(
    values: dict[str, str], reason: str
) -> None:
    with pytest.raises(UnsupportedBoardError, match=reason) as caught:
        board(values)
    assert caught.value.remedy


def test_pi_and_jetson_see_the_systems_packages() -> None:
    assert board(PI).system_site_packages
    assert "picamera2" in board(PI).modules
    assert board(JETSON).extras == "[jetson]"
    assert "g++" in board(JETSON).apt_packages.values()
    assert not board(DEBIAN).system_site_packages


def test_this_machine_keeps_the_commands_that_install() -> None:
    assert identify(Probe(DEBIAN), is_here=True).extras == "[provision]"


def test_probe_reads_lists_and_values() -> None:
    probe = Probe.parse(
        ["os_id=debian", "release=0.1.0-ab", "release=0.2.0-cd", "secret=mqtt-password 00ff",
         "current=/opt/fer-agent/releases/0.2.0-cd", "free_kib=2048"]
    )  # fmt: skip
    assert probe.releases == ("0.1.0-ab", "0.2.0-cd")
    assert probe.secrets == {"mqtt-password": "00ff"}
    assert probe.current_release == "0.2.0-cd"
    assert probe.number("free_kib") == 2048
