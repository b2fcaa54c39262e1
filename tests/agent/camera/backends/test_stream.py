from __future__ import annotations

import base64
import http.server
import logging
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

import cv2
import numpy as np
import pytest

from fer_agent.app import compose
from fer_agent.camera import capture
from fer_agent.camera.backends.stream import StreamSource
from fer_agent.camera.threaded import ThreadedCamera
from fer_agent.config.model import AgentConfig
from fer_agent.errors import CameraError
from fer_agent.vision.records import CameraStatus, Frame, Gap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PASSWORD = "s:3/c@t"  # with everything that an address gives another meaning
GUARDED = f"/guarded?user=me&pwd={quote(PASSWORD, safe='')}"
SYSTEM_PYTHON = "/usr/bin/python3"
SERVER = Path(__file__).parents[1] / "rtsp_server.py"


@contextmanager
def rtsp_server(*credentials: str, port: str = "0") -> Iterator[str]:
    command = [SYSTEM_PYTHON, str(SERVER), port, *credentials]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        try:
            yield f"rtsp://127.0.0.1:{port}/ball"
        finally:
            process.kill()


@pytest.fixture(scope="module")
def rtsp(require_program: Callable[[str], Path]) -> Iterator[str]:
    require_program("gst-launch-1.0")
    probe = [SYSTEM_PYTHON, "-c", "import gi; gi.require_version('GstRtspServer', '1.0')"]
    if not Path(SYSTEM_PYTHON).exists() or subprocess.run(probe, check=False).returncode:
        pytest.skip("no gir1.2-gst-rtsp-server-1.0; scripts/install-debian-packages brings it")
    with rtsp_server() as url:
        yield url


@pytest.fixture(scope="module")
def guarded(rtsp: str) -> Iterator[str]:
    with rtsp_server("me", PASSWORD) as url:
        yield url


def frames_of(source: StreamSource, count: int) -> list[Frame]:
    source.open()
    try:
        return [source.read() for _ in range(count)]
    finally:
        source.close()


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_rtsp_gives_moving_pictures(rtsp: str, transport: Any) -> None:
    frames = frames_of(StreamSource(rtsp, transport=transport), 5)
    assert {frame.size for frame in frames} == {(320, 240)}
    first, last = frames[0], frames[-1]
    assert (first.luma != last.luma).any()
    assert last.bgr().shape == (240, 320, 3)


def test_rtsp_takes_the_password_from_a_file(guarded: str, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(PASSWORD + "\n")
    source = StreamSource(guarded, username="me", password_file=tmp_path / "password")
    assert isinstance(frames_of(source, 1)[0], Frame)


def test_each_way_a_stream_can_fail_has_its_own_words(
    rtsp: str,
    guarded: str,
    port: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: Any,
) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "wrong").write_text("wr0ng-s3cret")
    wrong = StreamSource(guarded, username="me", password_file=tmp_path / "wrong")
    for source, words in (
        (wrong, "refused the user name or password"),
        (StreamSource(guarded), "wants a user name and password"),
        (StreamSource(rtsp + "/nothing"), "has no stream at"),
        (StreamSource(f"rtsp://127.0.0.1:{port}/ball"), "nothing listens on port"),
        (StreamSource("rtsp://no-such-host.invalid/x"), "there is no host called"),
        (StreamSource("rtsp://host:99999/x"), "is no address of a stream"),
    ):
        with pytest.raises(CameraError, match=words) as caught:
            source.open()
        assert caught.value.remedy
        said = str(caught.value) + caught.value.remedy + caplog.text + "".join(capfd.readouterr())
        assert "wr0ng" not in said


def test_missing_password_file_is_a_camera_fault_that_can_heal(rtsp: str, tmp_path: Path) -> None:
    source = StreamSource(rtsp, username="me", password_file=tmp_path / "later")
    with pytest.raises(CameraError, match="cannot read the secret"):
        source.open()


def test_a_dead_server_is_told_and_its_return_noticed(rtsp: str, port: int) -> None:
    del rtsp  # for its checks
    statuses: list[CameraStatus] = []
    with rtsp_server(port=str(port)) as url:
        camera = ThreadedCamera(
            StreamSource(url), name="door", gap_s=1, live=True, on_status=statuses.append
        )
        frames = camera.frames()
        next(item for item in frames if isinstance(item, Frame))
        assert statuses[-1].state.value == "online"
    next(item for item in frames if isinstance(item, Gap))
    assert statuses[-1].state.value == "offline"
    with rtsp_server(port=str(port)):
        next(item for item in frames if isinstance(item, Frame))
        assert statuses[-1].state.value == "online"
        camera.close()


def jpeg(width: int, height: int, shade: int) -> bytes:
    picture = np.full((height, width, 3), shade, np.uint8)
    return cv2.imencode(".jpg", picture)[1].tobytes()


class WebCamera(http.server.BaseHTTPRequestHandler):
    """Serves MJPEG at /video, one that grows at /growing, a page at /, and may want a password.

    Each request of /film takes the next of `films` and gets the last one again and again.
    """

    wanted: ClassVar[str] = ""
    films: ClassVar[list[bytes]] = []

    def do_GET(self) -> None:
        if self.wanted and self.headers.get("Authorization") != self.wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
        elif self.path == "/":
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(b"<!DOCTYPE html><html><body>Log in</body></html>")
        elif self.path in ("/video", "/growing", GUARDED):
            self._stream()
        elif self.path.startswith("/guarded"):
            self.send_error(403)
        elif self.path == "/film":
            self.send_response(200)
            self.send_header("Content-Type", "video/mp2t")
            self.end_headers()
            self.wfile.write(self.films.pop(0) if len(self.films) > 1 else self.films[0])
        else:
            self.send_error(404)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for number in range(300):
            grown = self.path == "/growing" and number >= 30
            size = (320, 240) if grown else (160, 120)
            data = jpeg(*size, shade=number % 200)
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            try:
                self.wfile.write(head.encode() + data + b"\r\n")
            except OSError:
                return
            time.sleep(0.01)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(WebCamera, "wanted", "")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), WebCamera) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_http_mjpeg_gives_pictures(web: str) -> None:
    frames = frames_of(StreamSource(f"{web}/video"), 5)
    assert {frame.size for frame in frames} == {(160, 120)}


def test_http_password_is_sent_and_a_missing_one_asked_for(
    web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    basic = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    monkeypatch.setattr(WebCamera, "wanted", f"Basic {basic}")
    (tmp_path / "password").write_text(PASSWORD)
    source = StreamSource(f"{web}/video", username="me", password_file=tmp_path / "password")
    assert isinstance(frames_of(source, 1)[0], Frame)
    with pytest.raises(CameraError, match="wants a user name"):
        StreamSource(f"{web}/video").open()


def test_a_password_in_the_query_comes_from_the_file_and_is_never_told(
    web: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "password").write_text(PASSWORD)
    (tmp_path / "wrong").write_text("wr0ng-s3cret")
    url = f"{web}/guarded?user=me&pwd={{password}}"
    source = StreamSource(url, password_file=tmp_path / "password")
    assert frames_of(source, 1)[0].size == (160, 120)
    with pytest.raises(CameraError, match="refused the user name or password") as caught:
        StreamSource(url, password_file=tmp_path / "wrong").open()
    said = str(caught.value) + caught.value.remedy + caplog.text + "".join(capfd.readouterr())
    assert "wr0ng" not in said


@pytest.mark.broker
def test_a_password_leaves_the_agent_only_towards_the_camera(
    web: str,
    tmp_path: Path,
    shared: Path,
    monkeypatch: pytest.MonkeyPatch,
    mosquitto: Callable[..., Any],
    subscribe: Callable[..., Any],
    wait_for: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    capfd: Any,
) -> None:
    caplog.set_level(logging.DEBUG)
    basic = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    monkeypatch.setattr(WebCamera, "wanted", f"Basic {basic}")
    cameras = {}
    for name, password in (("right", PASSWORD), ("wrong", "wr0ng-s3cret")):
        (tmp_path / name).write_text(password)
        section = {"source": f"{web}/video", "username": "me", "password_file": tmp_path / name}
        cameras[name] = section
    broker = mosquitto()
    listener = subscribe(broker.port)
    config = AgentConfig.model_validate(
        {
            "deployment": {"context": "research"},
            "mqtt": {"broker": f"mqtt://127.0.0.1:{broker.port}"},
            "detector": {"model_file": shared / "models" / "yunet_s_dynamic.onnx"},
            "camera": cameras,
        }
    )

    def told(end: str) -> bytes:
        return b" ".join(message.payload for message in listener.on(end))

    record = tmp_path / "record.jsonl"
    agent = compose.build(config, compose.RunOptions(record=record))
    thread = threading.Thread(target=agent.run)
    thread.start()
    try:
        wait_for(lambda: b"online" in told("cameras/right/status"))
        wait_for(lambda: b"refused the user" in told("alerts/camera-wrong"))
        wait_for(lambda: record.read_bytes().count(b"\n") > 1)
    finally:
        agent.stop()
        thread.join()
    published = told("").decode()
    shown = repr(config) + config.model_dump_json()
    said = record.read_text() + published + shown + caplog.text + "".join(capfd.readouterr())
    for secret in (PASSWORD, quote(PASSWORD, safe=""), "wr0ng", basic):
        assert secret not in said


def test_a_web_page_is_no_stream(web: str) -> None:
    with pytest.raises(CameraError, match="is a web page, not a stream"):
        StreamSource(f"{web}/").open()


def test_a_missing_path_is_told(web: str) -> None:
    with pytest.raises(CameraError, match="has no stream at"):
        StreamSource(f"{web}/none").open()


def test_a_stream_that_changes_its_size_goes_on_in_its_first_one(web: str) -> None:
    frames = frames_of(StreamSource(f"{web}/growing"), 60)
    assert {frame.size for frame in frames} == {(160, 120)}


def test_a_stream_that_comes_back_in_another_size_ends_the_tracks(
    web: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    encode: Callable[[Path, str, int], bytes],
) -> None:
    small, large = (encode(tmp_path / f"{size}.ts", size, 20) for size in ("320x240", "640x360"))
    monkeypatch.setattr(WebCamera, "films", [small + large, large])
    monkeypatch.setattr(capture, "FIRST_WAIT_S", 0.02)
    monkeypatch.setattr(capture, "LONGEST_WAIT_S", 0.02)
    camera = ThreadedCamera(
        StreamSource(f"{web}/film"), name="door", gap_s=60, live=True, on_status=print
    )
    told: list[tuple[int, int] | str] = []
    for item in camera.frames():
        word = item.size if isinstance(item, Frame) else item.reason
        told += [word] if word not in told else []
        if word == (640, 360):
            camera.close()
    assert told == [(320, 240), "the pictures changed their size", (640, 360)]


def test_a_server_that_speaks_something_else_is_told() -> None:
    def answer(listener: socket.socket) -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=(listener,), daemon=True)
        thread.start()
        with pytest.raises(CameraError, match="does not speak rtsp"):
            StreamSource(f"rtsp://127.0.0.1:{listener.getsockname()[1]}/x").open()
        thread.join(5)


def test_a_silent_host_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    from fer_agent.camera.backends import stream, stream_fault

    monkeypatch.setattr(stream, "OPEN_TIMEOUT_MS", 300)
    # A private limit, shortened like the public one above so that the test need not wait for it.
    monkeypatch.setattr(stream_fault, "_TIMEOUT_S", 0.3)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,  # accepts, and says nothing
        pytest.raises(CameraError, match="does not answer on port"),
    ):
        StreamSource(f"rtsp://127.0.0.1:{listener.getsockname()[1]}/x").open()
