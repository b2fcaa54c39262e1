from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from fer_agent.config.model import DetectorConfig
from fer_agent.errors import DownloadError, ModelFileError
from fer_agent.models.store import verify_file
from fer_agent.updates.cache import Wanted
from fer_agent.updates.connection import MinRate
from fer_agent.updates.detector_file import YUNET, locate
from fer_agent.updates.fetch import Fetcher, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CONTENT = bytes(range(256)) * 300
NAME = "face.onnx"


class Upstream:
    """A web server on loopback that answers as `behave` says, and counts requests."""

    def __init__(self) -> None:
        self.behave: Callable[[BaseHTTPRequestHandler], None] = self.whole
        self.requests: list[str] = []
        self.ranges: list[str] = []
        self.closing = threading.Event()
        upstream = self

        class UpstreamHandler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                upstream.requests.append(self.path)
                upstream.behave(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), UpstreamHandler)
        self.server.daemon_threads = True

    @property
    def port(self) -> int:
        return self.server.server_address[1]

    def send(self, handler: BaseHTTPRequestHandler, body: bytes, promised: int | None) -> None:
        handler.send_response(200)
        if promised is not None:
            handler.send_header("Content-Length", str(promised))
        handler.end_headers()
        handler.wfile.write(body)

    def whole(self, handler: BaseHTTPRequestHandler) -> None:
        self.send(handler, CONTENT, len(CONTENT))

    def truncated(self, handler: BaseHTTPRequestHandler) -> None:
        self.send(handler, CONTENT[:1000], len(CONTENT))

    def truncated_without_length(self, handler: BaseHTTPRequestHandler) -> None:
        self.send(handler, CONTENT[:1000], None)

    def other_bytes(self, handler: BaseHTTPRequestHandler) -> None:
        self.send(handler, CONTENT[::-1], len(CONTENT))

    def too_large(self, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not self.closing.is_set():
            try:
                handler.wfile.write(CONTENT)
            except OSError:
                return

    def ranged(self, handler: BaseHTTPRequestHandler) -> None:
        self.ranges.append(handler.headers["Range"])
        start = int(handler.headers["Range"].strip("bytes=-"))
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        handler.send_header("Content-Length", str(len(CONTENT) - start))
        handler.end_headers()
        handler.wfile.write(CONTENT[start:])

    def missing(self, handler: BaseHTTPRequestHandler) -> None:
        handler.send_error(404)

    def nonsense(self, handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"what?\r\n\r\n")

    def hangs_up(self, handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True

    def stalls(self, handler: BaseHTTPRequestHandler) -> None:
        self.send(handler, CONTENT[:1000], len(CONTENT))
        handler.wfile.flush()
        self.closing.wait(10)

    def dribbles(self, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not self.closing.wait(0.02):
            try:
                handler.wfile.write(b"x")
            except OSError:
                return


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    thread = threading.Thread(target=upstream.server.serve_forever, args=(0.01,))
    thread.start()
    yield upstream
    upstream.closing.set()
    upstream.server.shutdown()
    thread.join()
    upstream.server.server_close()


@pytest.fixture
def source(upstream: Upstream) -> Wanted:
    return Wanted(
        url=f"http://127.0.0.1:{upstream.port}/models/{NAME}",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size_bytes=len(CONTENT),
    )


def test_it_is_downloaded_once(upstream: Upstream, source: Wanted, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    store = tmp_path / "new" / "store"
    first = locate(DetectorConfig(), store, progress=lambda *step: seen.append(step), source=source)
    assert first == store / "detectors" / NAME
    assert first.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert locate(DetectorConfig(), store, source=source) == first
    assert upstream.requests == [f"/models/{NAME}"]


def test_the_configured_file_comes_first(
    upstream: Upstream, source: Wanted, tmp_path: Path
) -> None:
    own = tmp_path / "own.onnx"
    own.write_bytes(b"own")
    assert locate(DetectorConfig(model_file=own), tmp_path, source=source) == own
    assert upstream.requests == []


def test_a_configured_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"own\.onnx"):
        locate(DetectorConfig(model_file=tmp_path / "own.onnx"), tmp_path)


def test_a_damaged_file_in_the_store_is_fetched_again(
    upstream: Upstream, source: Wanted, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "detectors" / NAME
    path.parent.mkdir()
    path.write_bytes(CONTENT[:-1] + b"?")
    assert locate(DetectorConfig(), tmp_path, source=source).read_bytes() == CONTENT
    assert len(upstream.requests) == 1
    assert "fetched again" in caplog.text


def test_nothing_is_downloaded_where_the_config_forbids_it(
    upstream: Upstream, source: Wanted, tmp_path: Path
) -> None:
    with pytest.raises(DownloadError, match=r"`detector\.download` is false") as caught:
        locate(DetectorConfig(download=False), tmp_path, source=source)
    assert NAME in caught.value.remedy
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("truncated", "ended after 1000 of 76800 bytes"),
        ("truncated_without_length", "ended at byte 1000 of 76800"),
        ("other_bytes", "not the expected"),
        ("too_large", "longer than 76800 bytes"),
        ("missing", "answers 404"),
        ("nonsense", "what"),
        ("hangs_up", "hung up"),
        ("stalls", "bytes came in"),
        ("dribbles", "bytes came in"),
    ],
)
def test_a_bad_answer_is_an_error_and_leaves_no_detector(
    upstream: Upstream, source: Wanted, tmp_path: Path, behaviour: str, message: str
) -> None:
    upstream.behave = getattr(upstream, behaviour)
    slow = behaviour in ("stalls", "dribbles")
    pace = MinRate(window_s=1.0, window_bytes=2_000) if slow else MinRate()
    fetcher = Fetcher(min_rate=pace, retry=RetryPolicy(attempts=1))
    with pytest.raises(DownloadError, match=message) as caught:
        locate(DetectorConfig(), tmp_path, source=source, fetcher=fetcher)
    assert source.url in str(caught.value)
    assert caught.value.remedy
    assert not (tmp_path / "detectors").exists()


def test_a_download_that_broke_off_goes_on_where_it_ended(
    upstream: Upstream, source: Wanted, tmp_path: Path
) -> None:
    upstream.behave = upstream.truncated
    once = Fetcher(retry=RetryPolicy(attempts=1))
    with pytest.raises(DownloadError):
        locate(DetectorConfig(), tmp_path, source=source, fetcher=once)
    upstream.behave = upstream.ranged
    found = locate(DetectorConfig(), tmp_path, source=source, fetcher=once)
    assert found.read_bytes() == CONTENT
    assert upstream.ranges == ["bytes=1000-"]


def test_a_bad_answer_keeps_nothing_of_the_damaged_file_in_use(
    upstream: Upstream, source: Wanted, tmp_path: Path
) -> None:
    path = tmp_path / "detectors" / NAME
    path.parent.mkdir()
    path.write_bytes(b"damaged")
    upstream.behave = upstream.missing
    with pytest.raises(DownloadError):
        locate(DetectorConfig(), tmp_path, source=source)
    assert [file.name for file in path.parent.iterdir()] == [NAME]


def test_offline_is_an_error(tmp_path: Path, source: Wanted) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(DownloadError, match="refused"):
        locate(
            DetectorConfig(),
            tmp_path,
            source=replace(source, url=f"http://127.0.0.1:{port}/{NAME}"),
        )


@pytest.mark.parametrize("store", ["file", "/proc/fer-agent"])
def test_a_store_that_cannot_be_written_is_an_error(
    source: Wanted, tmp_path: Path, store: str
) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DownloadError, match="cannot write") as caught:
        locate(DetectorConfig(), tmp_path / store, source=source)
    assert "models.path" in caught.value.remedy


def test_a_full_disk_is_an_error(
    source: Wanted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(DownloadError, match=r"no room to write.*No space left"):
        locate(DetectorConfig(), tmp_path, source=source)
    assert not (tmp_path / "detectors").exists()


def test_proxies_of_the_environment_are_honoured(
    upstream: Upstream, source: Wanted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{upstream.port}")
    elsewhere = replace(source, url=f"http://models.invalid/{NAME}")
    assert locate(DetectorConfig(), tmp_path, source=elsewhere).read_bytes() == CONTENT
    assert upstream.requests == [f"http://models.invalid/{NAME}"]


def write_synced(store: Path, content: bytes) -> Path:
    """Lay a version of the detector into the store, as a sync does."""
    folder = store / ".versions" / "yunet" / "2023.3.0-01234567"
    folder.mkdir(parents=True)
    (folder / "yunet.onnx").write_bytes(content)
    entry = {"path": "yunet.onnx", "precision": "fp32", "bytes": len(content),
             "sha256": hashlib.sha256(content).hexdigest()}  # fmt: skip
    manifest = {
        "schema_version": 1, "name": "yunet", "version": "2023.3.0", "task": "face-detection",
        "files": [entry], "source": "https://example.org/yunet.onnx", "licence": "Apache-2.0",
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (store / "yunet").symlink_to(".versions/yunet/2023.3.0-01234567")
    return folder / "yunet.onnx"


def test_a_synced_version_comes_before_the_pinned_file(
    upstream: Upstream, source: Wanted, tmp_path: Path
) -> None:
    synced = write_synced(tmp_path, b"synced")
    assert locate(DetectorConfig(), tmp_path, source=source) == synced
    assert upstream.requests == []


def test_a_damaged_synced_version_gives_way_to_the_pinned_file(
    source: Wanted, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_synced(tmp_path, b"synced").write_bytes(b"broken")
    assert locate(DetectorConfig(), tmp_path, source=source).read_bytes() == CONTENT
    assert "cannot use the face detector that was synced" in caplog.text


def test_the_pin_is_that_of_the_published_file(shared: Path) -> None:
    local = shared / "models" / YUNET.name
    verify_file(local, sha256=YUNET.sha256, size_bytes=YUNET.size_bytes)
