from __future__ import annotations

import os
import pwd
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fer_agent import board, board_commands, clock, doctor, doctor_camera
from fer_agent.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONFIG = """\
[deployment]
context = "home"
[camera.main]
source = "{source}"
[models]
path = "{models}"
[mqtt]
broker = "{broker}"
"""


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Path]:
    clip = tmp_path / "clip.gif"
    clip.write_bytes(b"GIF89a")

    def write(
        more: str = "", *, source: str = str(clip), broker: str = "mqtt://127.0.0.1:9"
    ) -> Path:
        path = tmp_path / "config.toml"
        path.write_text(
            CONFIG.format(source=source, models=tmp_path / "models", broker=broker) + more
        )
        return path

    return write


def ids(path: Path) -> set[str]:
    return {finding.id for finding in doctor.examine(path).findings}


@pytest.fixture
def listening() -> Iterator[int]:
    """A port where somebody answers, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                while True:
                    server.accept()[0].close()
            except OSError:
                return

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_broker_out_of_reach_is_found(config: Callable[..., Path]) -> None:
    assert "broker-unreachable" in ids(config())


def test_broker_that_answers_is_no_finding(config: Callable[..., Path], listening: int) -> None:
    found = ids(config(broker=f"mqtt://127.0.0.1:{listening}"))
    assert not {one for one in found if one.startswith(("broker", "tls"))}


def test_wrong_configuration_ends_the_checks_that_need_one(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[detektor]\n")
    report = doctor.examine(wrong)
    assert report.findings[0].id == "config-invalid"
    assert "packages" in report.checked
    assert "cameras" not in report.checked


def test_model_of_another_hash_is_found(config: Callable[..., Path], tmp_path: Path) -> None:
    detector = tmp_path / "models/detectors/yunet_s_dynamic.onnx"
    detector.parent.mkdir(parents=True)
    detector.write_bytes(b"truncated")
    path = config('[classifier]\nmodel = "no-such-model"\n')
    assert {"model-unusable", "detector-broken"} <= ids(path)


def test_missing_camera_and_file_are_found(config: Callable[..., Path]) -> None:
    assert "camera-missing" in ids(config(source="/dev/video97"))
    assert "camera-missing" in ids(config(source="97"))
    assert "camera-missing" in ids(config(source="/no/such/clip.mp4"))


def test_streams_and_csi_cameras_are_not_looked_at() -> None:
    assert doctor_camera.examine("main", "rtsp://camera/stream") is None
    assert doctor_camera.examine("main", "picam:0") is None


@pytest.fixture
def terminal() -> Iterator[Path]:
    """A device with a number that nobody else has open.

    Every container counts its terminals from 0, and `/proc` shows them all.
    """
    masters = []
    while True:
        near, far = os.openpty()
        masters.append(near)
        device = Path(os.ttyname(far))
        os.close(far)
        if doctor_camera._holder(device) is None:
            break
    yield device
    for near in masters:
        os.close(near)


def test_camera_held_by_another_program_names_it(terminal: Path) -> None:
    code = (
        "import os, sys; os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY);"
        "print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, terminal], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        try:
            other.stdout.readline()  # type: ignore[union-attr]  # it is a pipe
            found = doctor_camera._holder(terminal)
        finally:
            other.stdin.close()  # type: ignore[union-attr]  # it is a pipe
    assert found is not None
    assert found[0] == other.pid
    assert f"process {other.pid}" in found[1]


def test_forbidden_camera_names_the_user_and_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"")
    clip.chmod(stat.S_IRUSR)
    nobody = pwd.getpwnam("nobody")
    monkeypatch.setattr(doctor_camera, "_service_user", lambda: nobody)
    problem = doctor_camera.examine("main", str(clip))
    if os.geteuid() == nobody.pw_uid:
        pytest.skip("the test runs as nobody")
    assert problem is not None
    assert problem.id == "camera-forbidden"
    assert "nobody" in problem.cause
    clip.chmod(0o644)
    assert doctor_camera.examine("main", str(clip)) is None


def test_heat_throttling_and_a_wrong_clock_are_found(
    config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "temperature_c", lambda: 85.0)
    monkeypatch.setattr(board, "throttled", lambda: True)
    monkeypatch.setattr(clock, "clock_synced", lambda: False)
    found = ids(config(broker="mqtts://127.0.0.1:9"))
    assert {"too-hot", "throttled", "clock-unsynced"} <= found


def test_two_opencvs_are_found(config: Callable[..., Path], tmp_path: Path) -> None:
    for name in ("opencv-python", "opencv-contrib-python"):
        info = tmp_path / f"site/{name.replace('-', '_')}-4.11.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 4.11\n")
    sys.path.insert(0, str(tmp_path / "site"))
    try:
        found = doctor.examine(config()).findings
    finally:
        sys.path.remove(str(tmp_path / "site"))
    (twice,) = [one for one in found if one.id == "opencv-twice"]
    assert "opencv-contrib-python" in twice.cause


def test_interpreter_of_another_abi_is_found(
    config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "libcamera").mkdir()
    (tmp_path / "libcamera/_libcamera.cpython-39-aarch64-linux-gnu.so").touch()
    monkeypatch.setattr(doctor, "_SYSTEM_PACKAGES", tmp_path)
    assert "picamera2-abi" in ids(config())


def test_package_that_dies_of_an_illegal_instruction_is_named(tmp_path: Path) -> None:
    (tmp_path / "dies.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    (tmp_path / "breaks.py").write_text("raise ImportError('libGL.so.1')\n")
    os.environ["PYTHONPATH"] = str(tmp_path)
    try:
        found = [*doctor._import("dies"), *doctor._import("breaks")]
    finally:
        del os.environ["PYTHONPATH"]
    assert [one.id for one in found] == ["package-illegal-instruction", "package-broken"]
    assert "libGL.so.1" in found[1].cause


def test_commands_without_the_extra_say_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="needs pyinfra") as caught:
        board_commands.relay("install", [])
    assert "fer-agent[provision]" in caught.value.remedy


def test_every_finding_has_a_remedy(config: Callable[..., Path]) -> None:
    report = doctor.examine(config(source="/dev/video97"))
    assert report.findings
    assert all(one.id and one.cause and one.remedy for one in report.findings)
    assert report.to_json()["schema_version"] == 1
