"""A publisher's machine, a real web server that serves its folder, and devices that trust it.

`sys.path`: importlib mode leaves it alone.
"""

from __future__ import annotations

import json
import shutil
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command

from fer_trainer.cli import app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


sys.path.insert(0, str(Path(__file__).parent))

from publishing_machines import Device, Operator, new_device
from tiny_models import entry, write_graph, write_model


@pytest.fixture(scope="session")
def built() -> Any:
    """The commands, made once: Typer makes them again at each call, which takes most of a call."""
    return get_command(app)


@pytest.fixture(autouse=True)
def _quick(built: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fer_trainer.cli.app", built)
    # Syncing matters after a power cut only, and waits for the disk 50 times a test.
    monkeypatch.setattr("os.fsync", lambda _descriptor: None)


@pytest.fixture
def new_publisher(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Operator:
    """A publisher without a repository yet."""
    monkeypatch.delenv("FER_PUBLISH_PASSWORD_FILE", raising=False)
    return Operator(tmp_path / "publisher", capsys, monkeypatch)


@pytest.fixture
def publisher(new_publisher: Operator) -> Operator:
    """A publisher with an empty repository and one key a role."""
    new_publisher.must("init")
    return new_publisher


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    """A function that serves a folder on loopback and returns its address."""
    servers = []

    def start(folder: Path) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
        thread = threading.Thread(target=server.serve_forever, name="test web server")
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def device(publisher: Operator, serve: Callable[[Path], str], tmp_path: Path) -> Device:
    """A device that was given the publisher's first root."""
    return new_device(publisher, serve(publisher.repository), tmp_path / "device")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole emotion model of a few kilobytes: `tiny` 1.0.0."""
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_next(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its next version, 1.1.0, with other weights."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return write_model(folder, version="1.1.0", seed=2)


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face detector's folder; what its graph computes does not matter here."""
    folder = tmp_path_factory.mktemp("models") / "yunet"
    folder.mkdir()
    file = folder / "yunet.onnx"
    write_graph(file, seed=3)
    manifest = {
        "schema_version": 1,
        "name": "yunet",
        "version": "2023.3.0",
        "task": "face-detection",
        "files": [entry(file) | {"precision": "fp32"}],
        "source": "https://example.org/yunet.onnx",
        "licence": "Apache-2.0",
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """A function that copies a model's folder, to be spoilt."""

    def copy(folder: Path) -> Path:
        return Path(shutil.copytree(folder, tmp_path / "copies" / folder.name))

    return copy
