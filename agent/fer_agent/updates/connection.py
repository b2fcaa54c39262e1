"""One HTTP request with proxy, TLS and a watchdog, to a server that may be slow or hostile.

The standard library's timeouts are per system call: a server that sends one byte every ten seconds
keeps a reader for ever. A watchdog beside each request cuts the connection when less than
`MinRate.window_bytes` came in `MinRate.window_s`, headers and TLS handshake included.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from fer_agent import __version__
from fer_agent.errors import ConfigError, DownloadError

_CHUNK_BYTES: Final = 1 << 16
_PORTS: Final = {"http": 80, "https": 443}


class FetchError(DownloadError):
    """A request failed.

    Attributes:
        again: whether another attempt can help.
        wait_s: pause that the server asks for before that.
    """

    def __init__(self, url: str, reason: str, *, again: bool, wait_s: float = 0.0) -> None:
        super().__init__(
            f"cannot download {shown(url)}: {reason}",
            remedy="check the address, the connection and the proxy, then try again",
        )
        self.again = again
        self.wait_s = wait_s


class StatusError(FetchError):
    """The server answered with an error status."""

    def __init__(self, url: str, status: int, reason: str, wait_s: float = 0.0) -> None:
        again = status in (408, 425, 429) or status >= 500
        super().__init__(url, f"the server answers {status} {reason}", again=again, wait_s=wait_s)
        self.status = status


class SlowError(FetchError):
    """The server sends too little in too long, or nothing."""


class TooLongError(FetchError):
    """The server sends more than the limit."""

    def __init__(self, url: str, limit_bytes: int) -> None:
        super().__init__(url, f"the answer is longer than {limit_bytes} bytes", again=False)


@dataclass(frozen=True, slots=True)
class MinRate:
    """The lower limit of a download's speed.

    Attributes:
        stall_s: longest silence, and longest wait for a connection.
        window_s: interval of the watchdog's checks.
        window_bytes: least bytes received in each interval.
    """

    stall_s: float = 15.0
    window_s: float = 20.0
    window_bytes: int = 20_000


@dataclass(frozen=True, slots=True)
class ProxyAndTls:
    """The proxy and the certificates of all requests.

    Attributes:
        proxy: http://host:port; empty takes the environment's (`https_proxy`, `http_proxy`,
            `no_proxy`).
        ca_file: certificates that servers are checked against; None for the system's.
    """

    proxy: str = ""
    ca_file: Path | None = None

    def proxy_for(self, target: SplitResult) -> SplitResult | None:
        """Return the proxy of one request; None to ask the server itself.

        Raises:
            ConfigError: the proxy's address is no http:// address.
        """
        address = self.proxy
        if not address and not proxy_bypass(target.hostname or ""):
            address = getproxies().get(target.scheme, "")
        if not address:
            return None
        proxy = urlsplit(address if "://" in address else f"http://{address}")
        if proxy.scheme != "http" or not proxy.hostname:
            raise ConfigError(
                f"{shown(address)!r} is no proxy",
                remedy="set `models.proxy` or the environment's to http://host:port",
            )
        return proxy

    def tls(self) -> ssl.SSLContext:
        """Return the context that checks a server's certificate.

        Raises:
            ConfigError: the certificates cannot be read.
        """
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"cannot use the certificates in {self.ca_file}: {error}",
                remedy="set `models.ca_file` to a readable PEM file",
            ) from error


class Answer:
    """The server's answer; `chunks` reads its body, once."""

    def __init__(self, url: str, response: http.client.HTTPResponse, watchdog: _Watchdog) -> None:
        self.url = url
        self.status = response.status
        self.reason = response.reason
        self._response = response
        self._watchdog = watchdog

    def header(self, name: str) -> str:
        """Return a header; empty without one."""
        return self._response.getheader(name) or ""

    @property
    def size_bytes(self) -> int | None:
        """The promised size of the body; None without a promise."""
        text = self.header("Content-Length")
        return int(text) if text.isdecimal() else None

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it comes.

        Raises:
            FetchError: it ended early or is compressed.
        """
        if self.header("Content-Encoding") not in ("", "identity"):
            raise FetchError(self.url, "the answer is compressed, which was not asked", again=False)
        received, promised = 0, self.size_bytes
        while chunk := self._read():
            received += len(chunk)
            self._watchdog.received += len(chunk)
            yield chunk
        if promised is not None and received < promised:
            ended = f"the answer ended after {received} of {promised} bytes"
            raise FetchError(self.url, ended, again=True)

    def _read(self) -> bytes:
        with self._watchdog.translating(self.url):
            chunk = self._response.read1(_CHUNK_BYTES)
        if not chunk and self._watchdog.slow:
            raise self._watchdog.too_slow(self.url)
        return chunk


@contextlib.contextmanager
def get(
    url: str, headers: Mapping[str, str], proxy_and_tls: ProxyAndTls, min_rate: MinRate
) -> Iterator[Answer]:
    """Send one GET request; the connection is closed at the end of the block.

    Args:
        url: http or https.
        headers: beyond Host, User-Agent and the like.
        proxy_and_tls: proxy and certificates.
        min_rate: lower limit of the speed.

    Raises:
        FetchError: no connection, no certificate, no HTTP, or too slow; also out of the block,
            when the body breaks off there.
        ConfigError: proxy or certificates cannot be used.
    """
    target = urlsplit(url)
    proxy = proxy_and_tls.proxy_for(target)
    connection, path = _plan(target, proxy, min_rate.stall_s)
    host = f"[{target.hostname}]" if ":" in (target.hostname or "") else target.hostname or ""
    sent = {
        "Host": host if target.port is None else f"{host}:{target.port}",
        "User-Agent": f"fer-agent/{__version__}",
        "Accept-Encoding": "identity",
        "Connection": "close",
        **headers,
    }
    if proxy is not None and target.scheme == "http":
        sent |= _credentials(proxy)
    watchdog = _Watchdog(connection, min_rate)
    try:
        with watchdog:
            with watchdog.translating(url):
                connection.connect()
                if target.scheme == "https":
                    connection.sock = proxy_and_tls.tls().wrap_socket(
                        connection.sock,
                        server_hostname=target.hostname,
                        do_handshake_on_connect=False,
                    )
                    connection.sock.do_handshake()
                watchdog.socket = connection.sock
                connection.request("GET", path, headers=sent)
                response = connection.getresponse()
            # Outside of `translating`: the block's disk errors are no fault of the network. Closed
            # separately: the connection has handed its socket over to the response.
            with contextlib.closing(response):
                yield Answer(url, response, watchdog)
    finally:
        connection.close()


def shown(url: str) -> str:
    """Return an address without credentials and query, which may be secret."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" if parts.scheme else url


def _plan(
    target: SplitResult, proxy: SplitResult | None, timeout_s: float
) -> tuple[http.client.HTTPConnection, str]:
    """Return an unopened connection, and the target of the request line."""
    host, port = target.hostname or "", target.port or _PORTS[target.scheme]
    path = (target.path or "/") + (f"?{target.query}" if target.query else "")
    if proxy is None:
        return http.client.HTTPConnection(host, port, timeout=timeout_s), path
    through = http.client.HTTPConnection(proxy.hostname or "", proxy.port or 80, timeout=timeout_s)
    if target.scheme == "http":
        return through, f"http://{target.netloc.rpartition('@')[2]}{path}"
    through.set_tunnel(host, port, headers=_credentials(proxy))
    return through, path


def _credentials(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair).decode("ascii")}


class _Watchdog:
    """Cuts a connection on which too little comes in."""

    def __init__(self, connection: http.client.HTTPConnection, min_rate: MinRate) -> None:
        self.received = 0
        self.slow = False
        self.socket: socket.socket | None = None
        """The connected socket: `http.client` lets go of its own once the body begins."""
        self._connection = connection
        self._min_rate = min_rate
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="download-watch", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_exc: object) -> None:
        self._done.set()
        self._thread.join()

    @contextlib.contextmanager
    def translating(self, url: str) -> Iterator[None]:
        """Turn the network's errors in the block into ours."""
        try:
            yield
        except TimeoutError as error:
            said = f"nothing came in {self._min_rate.stall_s:g} s"
            raise SlowError(url, said, again=True) from error
        except ssl.SSLCertVerificationError as error:
            reason = f"its certificate is not trusted: {error.verify_message}"
            raise FetchError(url, reason, again=False) from error
        except http.client.RemoteDisconnected as error:
            raise self._broken(url, "the server hung up") from error
        except http.client.HTTPException as error:
            raise self._broken(url, f"that is no HTTP: {error!r}") from error
        except OSError as error:
            reason = error.strerror or str(error) or type(error).__name__
            raise self._broken(url, reason) from error

    def too_slow(self, url: str) -> SlowError:
        """Return the error of a connection that was cut here."""
        limit = self._min_rate
        said = f"less than {limit.window_bytes} bytes came in {limit.window_s:g} s"
        return SlowError(url, said, again=True)

    def _broken(self, url: str, reason: str) -> FetchError:
        return self.too_slow(url) if self.slow else FetchError(url, reason, again=True)

    def _watch(self) -> None:
        before = 0
        while not self._done.wait(self._min_rate.window_s):
            if self.received - before < self._min_rate.window_bytes:
                break
            before = self.received
        # The socket may be replaced by its TLS wrapper meanwhile, so this goes on until it works.
        while not self._done.is_set():
            self.slow = True
            if (connected := self.socket or self._connection.sock) is not None:
                with contextlib.suppress(OSError):
                    # Not SSLSocket.shutdown, which would let a reader take ciphertext for text.
                    socket.socket.shutdown(connected, socket.SHUT_RDWR)
            self._done.wait(0.1)
