from __future__ import annotations

import datetime as dt
import json
import os
import pwd
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from typer.testing import CliRunner

from fer_agent.cli import app
from fer_agent.config import loading
from fer_agent.doctor import broker as doctor_broker
from fer_agent.doctor import camera as doctor_camera
from fer_agent.doctor import finding as doctor_finding
from fer_agent.doctor import packages as doctor_packages
from fer_agent.doctor import run as doctor
from fer_agent.errors import MissingExtraError
from fer_agent.system import board, clock, installed_service

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


def examine(path: Path | None) -> doctor.Report:
    """Run all checks but the imports of packages, which take seconds each."""
    return doctor.examine(path, imports=())


def ids(path: Path) -> set[str]:
    return {finding.id for finding in examine(path).findings}


def broker_ids(path: Path) -> set[str]:
    return {finding.id for finding in doctor_broker.examine(loading.load(path), path)}


def test_broker_out_of_reach_is_found(config: Callable[..., Path]) -> None:
    assert "broker-unreachable" in broker_ids(config())


@pytest.mark.broker
def test_broker_that_lets_us_in_is_no_finding(
    config: Callable[..., Path], mosquitto: Callable[..., Any]
) -> None:
    found = broker_ids(config(broker=mosquitto().uri))
    assert not {one for one in found if one.startswith(("broker", "tls"))}


@pytest.mark.broker
def test_wrong_password_of_the_broker_is_found(
    config: Callable[..., Path],
    mosquitto: Callable[..., Any],
    passwords: tuple[str, ...],
    tmp_path: Path,
) -> None:
    (tmp_path / "password").write_text("wrong")
    broker = mosquitto(*passwords)
    login = f'username = "fer"\npassword_file = "{tmp_path}/password"\n'
    assert "broker-credentials" in broker_ids(config(login, broker=broker.uri))
    (tmp_path / "password").write_text("right")
    assert "broker-credentials" not in broker_ids(config(login, broker=broker.uri))


@pytest.fixture
def tls_broker(mosquitto: Callable[..., Any], certificates: Any) -> Callable[[Path], str]:
    """A function that starts a broker with a certificate, and returns its address."""

    def start(certificate: Path) -> str:
        broker = mosquitto(
            "allow_anonymous true", f"certfile {certificate}", f"keyfile {certificates.server_key}"
        )
        return f"mqtts://127.0.0.1:{broker.port}"

    return start


@pytest.mark.broker
def test_certificate_of_an_unknown_ca_is_found(
    config: Callable[..., Path], tls_broker: Callable[[Path], str], certificates: Any
) -> None:
    address = tls_broker(certificates.server)
    assert "tls-chain" in broker_ids(config(broker=address))
    trusting = config(f'ca_file = "{certificates.ca}"\n', broker=address)
    assert not {one for one in broker_ids(trusting) if one.startswith(("broker", "tls"))}


@pytest.mark.broker
def test_certificate_that_does_not_fit_the_clock_is_found(
    config: Callable[..., Path],
    tls_broker: Callable[[Path], str],
    certificates: Any,
    tmp_path: Path,
) -> None:
    ca_key = certificates.ca.with_suffix(".key").read_bytes()
    old = x509.load_pem_x509_certificate(certificates.server.read_bytes())
    day = dt.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.issuer)
        .public_key(old.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(old.not_valid_before_utc - 3 * day)
        .not_valid_after(old.not_valid_before_utc - 2 * day)
    )
    for extension in old.extensions:
        certificate = certificate.add_extension(extension.value, extension.critical)
    key: Any = serialization.load_pem_private_key(ca_key, None)
    expired = certificate.sign(key, hashes.SHA256())
    path = tmp_path / "expired.pem"
    path.write_bytes(expired.public_bytes(serialization.Encoding.PEM))
    trusting = config(f'ca_file = "{certificates.ca}"\n', broker=tls_broker(path))
    assert "tls-clock" in broker_ids(trusting)


def test_wrong_configuration_ends_the_checks_that_need_one(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[detektor]\n")
    report = examine(wrong)
    assert report.findings[0].id == "config-invalid"
    assert "packages" in report.checked
    assert "cameras" not in report.checked


def test_missing_and_forbidden_configurations_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Private, because nothing but a test may move /etc.
    monkeypatch.setattr(loading, "_SYSTEM_FILE", tmp_path / "etc/config.toml")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    finding = examine(None).findings[-1]
    assert (finding.id, finding.command.split()[:3]) == (
        "config-missing",
        ["fer-agent", "config", "init"],
    )
    if os.geteuid() != 0:
        (tmp_path / "etc").mkdir(mode=0)
        assert examine(None).findings[-1].id == "config-forbidden"


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


def test_streams_are_not_looked_at(tmp_path: Path) -> None:
    assert doctor_camera.examine("main", "rtsp://camera/stream", tmp_path) is None


PICAMERA2 = """
class Picamera2:
    @staticmethod
    def global_camera_info():
        return [{"Num": 0, "Model": "imx708", "Location": 2, "Rotation": 180, "Id": "/base/i2c0"}]
"""


@pytest.fixture
def picamera2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a picamera2 that stands in for the Pi's."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor_camera, "DEVICES", tmp_path)
    path = tmp_path / "picamera2.py"
    path.write_text(PICAMERA2)
    return path


def test_pi_camera_that_is_there_is_no_finding(picamera2: Path) -> None:
    assert doctor_camera.examine("main", "picam:0", picamera2) is None


def test_pi_camera_that_libcamera_does_not_see_is_found(picamera2: Path) -> None:
    finding = doctor_camera.examine("main", "picam:1", picamera2)
    assert finding is not None
    assert finding.id == "camera-missing"


def test_missing_and_broken_picamera2_are_told_apart(picamera2: Path) -> None:
    picamera2.write_text("raise ValueError('numpy.dtype size changed')")
    broken = doctor_camera.examine("main", "picam:0", picamera2)
    picamera2.unlink()
    missing = doctor_camera.examine("main", "picam:0", picamera2)
    assert broken is not None
    assert missing is not None
    assert (broken.id, missing.id) == ("picamera2-broken", "picamera2-missing")
    assert "numpy.dtype size changed" in broken.cause


LOCK = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print(flush=True)
    sys.stdin.read()
"""


def test_pi_camera_in_use_names_who_locked_its_media_device(picamera2: Path) -> None:
    media = picamera2.with_name("media0")
    media.write_bytes(b" ")
    with subprocess.Popen(
        [sys.executable, "-c", LOCK, media], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()  # type: ignore[union-attr]  # it is a pipe
        finding = doctor_camera.examine("main", "picam:0", picamera2)
        other.stdin.close()  # type: ignore[union-attr]  # it is a pipe
    assert finding is not None
    assert finding.id == "camera-busy"
    assert f"(process {other.pid})" in finding.cause
    assert finding.command.startswith("sudo ")


def test_csi_camera_without_argus_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_camera, "ARGUS_SOCKET", tmp_path / "argus_socket")
    finding = doctor_camera.examine("main", "csi:0", tmp_path)
    assert finding is not None
    assert "nvargus-daemon" in finding.command
    (tmp_path / "argus_socket").touch()
    assert doctor_camera.examine("main", "csi:0", tmp_path) is None


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
        if doctor_camera.holder_of(device) is None:
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
            found = doctor_camera.holder_of(terminal)
        finally:
            other.stdin.close()  # type: ignore[union-attr]  # it is a pipe
    assert found == other.pid


def test_forbidden_camera_names_the_user_and_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"")
    clip.chmod(stat.S_IRUSR)
    nobody = pwd.getpwnam("nobody")
    monkeypatch.setattr(doctor_camera, "service_user", lambda: nobody)
    problem = doctor_camera.examine("main", str(clip), tmp_path)
    if os.geteuid() == nobody.pw_uid:
        pytest.skip("the test runs as nobody")
    assert problem is not None
    assert problem.id == "camera-forbidden"
    assert "nobody" in problem.cause
    clip.chmod(0o644)
    assert doctor_camera.examine("main", str(clip), tmp_path) is None


def test_heat_throttling_and_a_wrong_clock_are_found(
    config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = board.BoardState(
        temperature_c=85.0, throttled=True, throttle_reasons=("under-voltage",)
    )
    monkeypatch.setattr(board, "read_state", lambda: state)
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
        found = examine(config()).findings
    finally:
        sys.path.remove(str(tmp_path / "site"))
    (twice,) = [one for one in found if one.id == "opencv-twice"]
    assert "opencv-contrib-python" in twice.cause


def test_interpreter_of_another_abi_is_found(
    config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "libcamera").mkdir()
    (tmp_path / "libcamera/_libcamera.cpython-39-aarch64-linux-gnu.so").touch()
    monkeypatch.setattr(doctor_packages, "SYSTEM_PACKAGES", tmp_path)
    assert "picamera2-abi" in ids(config())


def test_package_that_dies_of_an_illegal_instruction_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dies.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    (tmp_path / "breaks.py").write_text("raise ImportError('libGL.so.1')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = [*doctor_packages.examine_import("dies"), *doctor_packages.examine_import("breaks")]
    assert [one.id for one in found] == ["package-illegal-instruction", "package-broken"]
    assert "libGL.so.1" in found[1].cause


def test_commands_without_the_extra_say_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="needs pyinfra") as caught:
        installed_service.relay("install", [])
    assert "fer-agent[provision]" in caught.value.remedy


def test_runtime_that_is_asked_for_and_not_there_is_found(config: Callable[..., Path]) -> None:
    assert "runtime-provider" in ids(config('[classifier]\nruntime = "tensorrt"\n'))


def test_installed_board_is_mended_from_where_it_was_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "prefix", "/opt/fer-agent/releases/1.0.0-ab")
    monkeypatch.setenv("SUDO_USER", "pi")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert doctor_finding.reinstall_command().startswith("fer-agent upgrade --reinstall pi@")


def test_every_finding_has_a_remedy_and_a_command(config: Callable[..., Path]) -> None:
    path = config(source="/dev/video97")
    result = CliRunner().invoke(app, ["doctor", "--json", "--config", str(path)])
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert (report["schema_version"], report["checked"][0]) == (1, "config")
    assert report["findings"]
    for finding in report["findings"]:
        assert all(finding[part] for part in ("id", "cause", "remedy", "command"))


def test_every_finding_is_in_the_manual(root: Path) -> None:
    manual = (root / "docs/doctor.md").read_text()
    sources = "".join(path.read_text() for path in (root / "agent/fer_agent/doctor").glob("*.py"))
    named = set(re.findall(r"Finding\(\s*\"([a-z0-9-]+)\"", sources)) | {
        "runtime-provider",
        "package-broken",
    }
    assert len(named) > 20
    assert named == set(re.findall(r"^\| `([a-z0-9-]+)` \|", manual, re.MULTILINE))
