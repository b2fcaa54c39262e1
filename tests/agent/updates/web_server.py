"""A web server on loopback that serves a dictionary, as well or as badly as a test says."""

from __future__ import annotations

import re
import socket
import struct
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    Behaviour = Callable[["FaultyHandler", bytes], None]


class WebServer:
    """Serves `site`; a path with a fault is answered by that fault instead, so often as it says."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.site: dict[str, bytes] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.sent_bytes = 0
        self.closing = threading.Event()
        self._faults: list[tuple[re.Pattern[str], Behaviour, list[int]]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), FaultyHandler)
        self._server.daemon_threads = True
        self._server.web = self  # type: ignore[attr-defined]
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.scheme = "https" if tls else "http"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"{self.scheme}://localhost:{self.port}"

    def fault(self, path: str, behaviour: Behaviour, times: int = 1_000_000) -> None:
        """Answer paths that match with a fault, so many times; the newest fault counts."""
        self._faults.insert(0, (re.compile(path), behaviour, [times]))

    def heal(self) -> None:
        self._faults.clear()

    def asked(self, path: str) -> list[dict[str, str]]:
        """Headers of the requests whose path matches."""
        return [headers for each, headers in self.requests if re.search(path, each)]

    def behaviour(self, path: str) -> Behaviour:
        for pattern, behaviour, times in self._faults:
            if pattern.search(path) and times[0] > 0:
                times[0] -= 1
                return behaviour
        return whole

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class FaultyHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def web(self) -> WebServer:
        return self.server.web  # type: ignore[attr-defined, no-any-return]

    def do_GET(self) -> None:
        # Through a proxy the whole address stands here.
        path = re.sub(r"^https?://[^/]*", "", self.path)
        self.web.requests.append((self.path, {k.title(): v for k, v in self.headers.items()}))
        content = self.web.site.get(path.lstrip("/"))
        # Whoever has had enough hangs up in the middle.
        with suppress(OSError):
            behaviour = self.web.behaviour(path)
            if content is None and behaviour is whole:
                self.plain(404)
            else:
                behaviour(self, content or b"")

    def do_CONNECT(self) -> None:
        """Be a proxy for TLS: bytes to and fro until one side ends."""
        self.web.requests.append((f"CONNECT {self.path}", dict(self.headers.items())))
        host, _, port = self.path.partition(":")
        with socket.create_connection((host, int(port)), 10) as far:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=pump, args=(far, self.connection), daemon=True)
            back.start()
            pump(self.connection, far)
            back.join(10)
        self.close_connection = True

    def plain(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.put(body)

    def put(self, body: bytes) -> None:
        for start in range(0, len(body), 1 << 14):
            piece = body[start : start + (1 << 14)]
            self.wfile.write(piece)
            self.web.sent_bytes += len(piece)

    def log_message(self, *_: object) -> None:
        pass


def pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def etag(content: bytes) -> str:
    return f'"{hash(content):x}"'


def whole(handler: FaultyHandler, content: bytes) -> None:
    """As a good web server does, ranges included."""
    wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    if_range = handler.headers.get("If-Range")
    if wanted is None or if_range not in (None, etag(content)):
        handler.plain(200, content, ETag=etag(content))
        return
    start = int(wanted[1])
    if start >= len(content):
        handler.plain(416)
        return
    span = f"bytes {start}-{len(content) - 1}/{len(content)}"
    handler.plain(206, content[start:], ETag=etag(content), Content_Range=span)


def cut_after(size: int) -> Behaviour:
    """Send so many bytes of what was asked for, then reset the connection."""

    def behave(handler: FaultyHandler, content: bytes) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        handler.send_response(206 if start else 200)
        handler.send_header("ETag", etag(content))
        if start:
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            handler.send_header("Content-Range", span)
        handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        handler.put(content[start : start + size])
        handler.wfile.flush()
        # Closed by a reset, once what was sent has been taken.
        linger = struct.pack("ii", 1, 0)
        handler.web.closing.wait(0.2)
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        handler.connection.close()
        handler.close_connection = True

    return behave


def stall_after(size: int) -> Behaviour:
    """Send so many bytes, then nothing more."""

    def behave(handler: FaultyHandler, content: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.put(content[:size])
        handler.wfile.flush()
        handler.web.closing.wait(60)
        handler.close_connection = True

    return behave


def truncated(handler: FaultyHandler, content: bytes) -> None:
    """Promise all, send half, and end in order."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.put(content[: len(content) // 2])
    handler.close_connection = True


def short(handler: FaultyHandler, content: bytes) -> None:
    """Send half as if it were all."""
    handler.plain(200, content[: len(content) // 2])


def one_byte_other(handler: FaultyHandler, content: bytes) -> None:
    middle = len(content) // 2
    flipped = bytes([content[middle] ^ 1])
    handler.plain(200, content[:middle] + flipped + content[middle + 1 :])


def instead(other: bytes) -> Behaviour:
    """Send something else, whatever was asked for."""
    return lambda handler, _content: handler.plain(200, other)


def status(code: int, **headers: str) -> Behaviour:
    return lambda handler, _content: handler.plain(code, **headers)


def redirect(target: str, code: int = 302) -> Behaviour:
    return status(code, Location=target)


def endless(handler: FaultyHandler, content: bytes) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.close_connection = True
    while not handler.web.closing.is_set():
        handler.put(b"x" * (1 << 14))


def dribble(handler: FaultyHandler, content: bytes) -> None:
    """A byte now and then: never silent, never done."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.close_connection = True
    while not handler.web.closing.wait(0.05):
        handler.put(b"x")


def dribble_headers(handler: FaultyHandler, content: bytes) -> None:
    handler.close_connection = True
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while not handler.web.closing.wait(0.05):
        handler.wfile.write(b"x")
        handler.wfile.flush()
