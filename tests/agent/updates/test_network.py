"""Bad networks: a real HTTP server that cuts, stalls, truncates, corrupts, refuses and redirects.

In every case a sync either gets the whole, right content, or says what happened and changes
nothing; the next sync over a good network succeeds.
"""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import web_server as web
from syncing_device import IMPATIENT, NAME, SHORT_WINDOW, make_files

from fer_agent.errors import AgentError
from fer_agent.updates.client import Repository
from fer_agent.updates.connection import ProxyAndTls
from fer_agent.updates.fetch import Fetcher
from fer_agent.updates.inventory import verify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from simulated_repository import SimulatedRepository
    from syncing_device import SyncingDevice
    from web_server import WebServer

UNREACHABLE = 69
REFUSED = 76
NETWORK = bytes(range(256)) * 400
"""102,400 bytes."""
FILE = r"/targets/.*model\.onnx"
FILES = ["timestamp", "snapshot", "targets", "model"]


def path_of(file: str) -> str:
    return FILE if file == "model" else rf"/metadata/(\d+\.)?{file}\.json"


@pytest.fixture
def offer(device: SyncingDevice, owner: SimulatedRepository) -> None:
    """Version 1.1.0 is published after the device has taken 1.0.0."""
    device.sync()
    owner.add(make_files("1.1.0", NETWORK))
    owner.publish()


def fails(device: SyncingDevice, exit_code: int, says: str) -> None:
    with pytest.raises(AgentError, match=says) as caught:
        device.sync()
    assert caught.value.exit_code == exit_code
    assert device.versions() == ["1.0.0"]


def arrives(device: SyncingDevice) -> None:
    device.sync()
    assert device.versions() == ["1.1.0", "1.0.0"]
    assert [each.problem for each in verify(device.store, [NAME])] == ["", ""]
    (file,) = (device.store / ".versions" / NAME).glob("1.1.0-*/model.onnx")
    assert file.read_bytes() == NETWORK
    # Nothing stays of the way here.
    assert list((device.store / ".staging").iterdir()) == []
    assert [path.name for path in (device.store / ".cache").iterdir()] == []


@pytest.mark.usefixtures("offer")
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    "behaviour", [web.cut_after(100), web.truncated, web.status(503), web.status(429)]
)
def test_a_fault_that_passes_is_tried_again_within_one_sync(
    device: SyncingDevice, server: WebServer, file: str, behaviour: web.Behaviour
) -> None:
    server.fault(path_of(file), behaviour, times=2)
    arrives(device)


@pytest.mark.usefixtures("offer")
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    ("behaviour", "exit_code", "says"),
    [
        (web.cut_after(100), UNREACHABLE, "cannot download"),
        (web.stall_after(100), UNREACHABLE, "bytes came in|nothing came"),
        (web.truncated, UNREACHABLE, "ended after"),
        (web.status(404), UNREACHABLE, "404"),
        (web.status(500), UNREACHABLE, "500"),
        (web.redirect("/elsewhere"), UNREACHABLE, "404"),
        (web.redirect("ftp://localhost/"), UNREACHABLE, "redirects to"),
        (web.redirect(""), UNREACHABLE, "redirects to"),
    ],
    ids=["cut", "stall", "truncate", "404", "500", "redirect", "ftp", "nowhere"],
)
def test_a_fault_that_stays_changes_nothing(
    device: SyncingDevice,
    server: WebServer,
    file: str,
    behaviour: web.Behaviour,
    exit_code: int,
    says: str,
) -> None:
    server.fault(path_of(file), behaviour)
    fails(device, exit_code, says)
    server.heal()
    arrives(device)


@pytest.mark.usefixtures("offer")
@pytest.mark.parametrize("file", FILES)
def test_one_corrupted_byte_is_refused(device: SyncingDevice, server: WebServer, file: str) -> None:
    server.fault(path_of(file), web.one_byte_other)
    fails(device, REFUSED, "not signed by enough|does not verify|not the expected")
    server.heal()
    arrives(device)


@pytest.mark.usefixtures("offer")
def test_one_byte_corrupted_once_is_fetched_again(device: SyncingDevice, server: WebServer) -> None:
    server.fault(FILE, web.one_byte_other, times=1)
    arrives(device)


@pytest.mark.usefixtures("offer")
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_followed(device: SyncingDevice, server: WebServer, code: int) -> None:
    for path in list(server.site):
        if path.startswith("targets/"):
            server.site[f"moved/{path}"] = server.site[path]

    def move(handler: web.Handler, _content: bytes) -> None:
        handler.plain(code, Location=f"{server.url}/moved{handler.path}")

    server.fault("^/targets/", move)
    arrives(device)


@pytest.mark.usefixtures("offer")
def test_redirects_in_a_circle_end(device: SyncingDevice, server: WebServer) -> None:
    server.fault(FILE, lambda handler, _: handler.plain(302, Location=handler.path))
    fails(device, UNREACHABLE, "more than 5 redirections")


@pytest.mark.usefixtures("offer")
def test_a_download_that_breaks_off_goes_on_where_it_ended(
    device: SyncingDevice, server: WebServer
) -> None:
    server.fault(FILE, web.cut_after(30_000))
    fails(device, UNREACHABLE, "cannot download")
    server.heal()
    before = server.sent_bytes
    arrives(device)
    # Three attempts of 30,000 bytes came before, some of which a reset may have swallowed.
    starts = [headers["Range"] for headers in server.asked(FILE) if "Range" in headers]
    assert starts == sorted(starts, key=lambda text: int(text.strip("bytes=-")))
    assert starts[-1] > "bytes=0-"
    assert server.sent_bytes - before < len(NETWORK)


@pytest.mark.usefixtures("offer")
def test_a_part_of_something_else_is_thrown_away(device: SyncingDevice, server: WebServer) -> None:
    server.fault(FILE, web.cut_after(30_000))
    fails(device, UNREACHABLE, "cannot download")
    (part,) = (device.store / ".cache").glob("*.part")
    part.write_bytes(b"x" * part.stat().st_size)
    server.heal()
    arrives(device)


@pytest.mark.usefixtures("offer")
def test_a_part_that_is_longer_than_the_whole_is_thrown_away(
    device: SyncingDevice, server: WebServer
) -> None:
    server.fault(FILE, web.cut_after(30_000))
    fails(device, UNREACHABLE, "cannot download")
    (part,) = (device.store / ".cache").glob("*.part")
    part.write_bytes(NETWORK + b"more")
    server.heal()
    arrives(device)


@pytest.mark.usefixtures("offer")
def test_a_server_that_knows_no_ranges_sends_all(device: SyncingDevice, server: WebServer) -> None:
    server.fault(FILE, web.cut_after(30_000), times=1)
    server.fault(FILE, web.instead(NETWORK))
    # The newest fault counts: the first answer is cut.
    server.fault(FILE, web.cut_after(30_000), times=1)
    arrives(device)


@pytest.mark.usefixtures("offer")
def test_a_server_that_goes_on_at_another_byte_is_refused(
    device: SyncingDevice, server: WebServer
) -> None:
    def elsewhere(handler: web.Handler, content: bytes) -> None:
        span = f"bytes 5-{len(content) - 1}/{len(content)}"
        handler.plain(206, content[5:], Content_Range=span)

    server.fault(FILE, elsewhere)
    server.fault(FILE, web.cut_after(30_000), times=1)
    fails(device, UNREACHABLE, "goes on at another byte")


@pytest.mark.usefixtures("offer")
def test_a_server_that_is_not_there(device: SyncingDevice, server: WebServer) -> None:
    device.url = "http://localhost:9"
    fails(device, UNREACHABLE, "cannot download")


@pytest.mark.usefixtures("offer")
def test_what_is_no_repository_is_named(device: SyncingDevice, server: WebServer) -> None:
    device.url += "/elsewhere"
    fails(device, UNREACHABLE, "serves no repository")


def test_a_proxy_carries_everything(
    device: SyncingDevice, server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    device.url = "http://models.invalid"
    device.sync()
    assert device.versions() == ["1.0.0"]
    assert all(path.startswith("http://models.invalid/") for path, _ in server.requests)


@pytest.fixture
def secure(owner: SimulatedRepository, certificates: Any) -> Iterator[WebServer]:
    """The same over TLS, with a certificate that no system knows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server, certificates.server_key)
    server = web.WebServer(context)
    server.site = owner.site
    yield server
    server.close()


def over_tls(device: SyncingDevice, secure: WebServer, ca_file: Path | None) -> Repository:
    fetcher = Fetcher(ProxyAndTls(ca_file=ca_file), SHORT_WINDOW, IMPATIENT)
    url = f"https://127.0.0.1:{secure.port}"
    return Repository(url, device.root_file, device.store / ".tuf", fetcher)


def test_a_certificate_of_ones_own_authority(
    device: SyncingDevice, secure: WebServer, certificates: Any
) -> None:
    assert over_tls(device, secure, certificates.ca).refresh(device.clock.now())
    with pytest.raises(AgentError, match="certificate is not trusted") as caught:
        over_tls(device, secure, None).refresh(device.clock.now())
    assert caught.value.exit_code == UNREACHABLE
    assert len(secure.requests) > 0


def test_a_redirect_from_https_to_http_is_refused(
    device: SyncingDevice, server: WebServer, secure: WebServer, certificates: Any
) -> None:
    secure.fault("timestamp", web.redirect(f"{server.url}/metadata/timestamp.json"))
    with pytest.raises(AgentError, match="redirects from https to http"):
        over_tls(device, secure, certificates.ca).refresh(device.clock.now())
    assert server.asked("timestamp") == []


def test_no_log_tells_credentials_or_queries(
    device: SyncingDevice, server: WebServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "fer_agent")
    server.fault("timestamp", web.redirect("http://user:swordfish@localhost:9/x?token=swordfish"))
    with pytest.raises(AgentError) as caught:
        device.sync()
    assert "localhost:9/x" in str(caught.value)
    assert "swordfish" not in caplog.text + str(caught.value) + caught.value.remedy
