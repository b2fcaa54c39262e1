"""The diagnosis of a network camera that FFmpeg cannot open."""

from __future__ import annotations

import http.client
import socket
import ssl
from urllib.parse import SplitResult, urlsplit

from fer_agent.errors import CameraError

_TIMEOUT_S = 2.0
_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
_USER_AGENT = "fer-agent"


def diagnose(url: str, *, with_credentials: bool) -> CameraError:
    """Ask the server once more, without credentials, and return the fault.

    Args:
        url: address without credentials.
        with_credentials: whether the failed attempt had credentials, which the server then refused.
    """
    parts = urlsplit(url)
    try:
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        status, content_type = _ask(parts, host, port)
    except (ValueError, KeyError):
        return CameraError(
            f"{url} is no address of a stream",
            remedy="use rtsp://host/path or http://host/path",
        )
    except (OSError, http.client.HTTPException) as error:
        return _unreachable(error, parts.scheme, host, port)
    return _explain(url, status, content_type, with_credentials=with_credentials)


def _unreachable(error: Exception, scheme: str, host: str, port: int) -> CameraError:
    if isinstance(error, socket.gaierror):
        text = f"there is no host called {host}"
        remedy = "check the address of the camera"
    elif isinstance(error, ConnectionRefusedError):
        text = f"the host {host} is there, but nothing listens on port {port}"
        remedy = "check the port, and that the camera's streaming is switched on"
    elif isinstance(error, TimeoutError):
        text = f"the host {host} does not answer on port {port}"
        remedy = "check that the camera is on, its address, and the network between"
    elif isinstance(error, ssl.SSLError):
        text = f"{host} has no certificate that this device trusts: {error.reason}"
        remedy = "add the camera's CA to the system's certificates, or use http://"
    else:
        text = f"the host {host} does not speak {scheme} on port {port}: {error}"
        remedy = "check scheme and port of the address"
    return CameraError(text, remedy=remedy)


def _explain(url: str, status: int, content_type: str, *, with_credentials: bool) -> CameraError:
    if status in (401, 403, 407) and with_credentials:
        text = f"{url} refused the user name or password"
        remedy = "check `username` and the contents of `password_file`"
    elif status in (401, 403, 407):
        text = f"{url} wants a user name and password"
        remedy = "set the camera's `username` and `password_file`"
    elif status == 404:
        text = f"the camera has no stream at {url}"
        remedy = "look up the stream's path in the camera's manual"
    elif status >= 400:
        text = f"{url} answers with error {status}"
        remedy = "restart the camera; it may allow one viewer only"
    elif "html" in content_type:
        text = f"{url} is a web page, not a stream"
        remedy = "look up the stream's own address in the camera's manual"
    else:
        kind = f" ({content_type})" if content_type else ""
        text = f"{url} answers, but sends nothing that can be decoded{kind}"
        remedy = "choose H.264 or MJPEG in the camera's settings"
    return CameraError(text, remedy=remedy)


def _ask(parts: SplitResult, host: str, port: int) -> tuple[int, str]:
    """Return a server's status code and content type."""
    if parts.scheme.startswith("rtsp"):
        return _ask_rtsp(parts.geturl(), host, port)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(host, port, timeout=_TIMEOUT_S)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers={"User-Agent": _USER_AGENT})
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type", "").lower()
    finally:
        connection.close()


def _ask_rtsp(url: str, host: str, port: int) -> tuple[int, str]:
    """Send a DESCRIBE, RFC 2326 section 10.2; servers that want a password answer with 401."""
    with socket.create_connection((host, port), timeout=_TIMEOUT_S) as connection:
        request = f"DESCRIBE {url} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n"
        connection.sendall(f"{request}User-Agent: {_USER_AGENT}\r\n\r\n".encode())
        line = connection.makefile("rb").readline(512).decode("latin-1")
    protocol, _, rest = line.partition(" ")
    if not protocol.startswith("RTSP/"):
        raise http.client.HTTPException("it answers with something else")
    return int(rest[:3]) if rest[:3].isdecimal() else 500, ""
