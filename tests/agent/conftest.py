"""Real brokers for the agent's tests, and a wire between that can be cut.

`sys.path`: importlib mode leaves it alone, and `support` is what several folders share.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from fer_agent.cli import main
from fer_agent.inference.onnx import OnnxSession
from fer_agent.vision.records import Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fer_agent.vision.records import Bgr

sys.path.insert(0, str(Path(__file__).parent / "support"))

PATIENCE_S = 120.0
"""How long a test waits for what must come; as long as no machine is slow, only a hang takes it."""

_FIRST_PORT = 10_000


def free_port() -> int:
    """Find a port that nobody listens on, and that stays so while a broker is down.

    The system takes ports for clients, and for whoever asks for any, from a range above these.
    """
    limits = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()
    while True:
        port = _FIRST_PORT + secrets.randbelow(int(limits[0]) - _FIRST_PORT)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@pytest.fixture
def port() -> int:
    """A port for a server that goes and comes back."""
    return free_port()


@pytest.fixture
def fer_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that runs a command line in this process, away from this user's settings."""

    def run(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
        words = ["fer-agent", *map(str, arguments)]
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("FER_")]:
                patch.delenv(name)
            for name, text in ({"XDG_CONFIG_HOME": str(tmp_path)} | env).items():
                patch.setenv(name, text)
            patch.chdir(tmp_path)
            patch.setattr(sys, "argv", words)
            with pytest.raises(SystemExit) as ended:
                main()
        said = capsys.readouterr()
        return subprocess.CompletedProcess(words, ended.value.code or 0, said.out, said.err)

    return run


@pytest.fixture
def wait_for() -> Callable[..., None]:
    """A function that waits until a condition holds, and fails after a while."""

    def wait(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.02)

    return wait


class Mosquitto:
    """A mosquitto of our own on a loopback port; it keeps sessions when restarted in order."""

    def __init__(self, program: Path, folder: Path, lines: tuple[str, ...]) -> None:
        self.port = free_port()
        self._program = program
        self._config = folder / f"mosquitto-{self.port}.conf"
        self._log = (folder / f"mosquitto-{self.port}.log").open("wb")
        store = folder / f"store-{self.port}"
        store.mkdir()
        store.chmod(0o777)
        self._saved = store / "mosquitto.db"
        settings = [
            "user root",
            f"listener {self.port} 127.0.0.1",
            "persistence true",
            # By default a subscriber that is away for 1,000 messages loses the next. 0 means no
            # limit, but then mosquitto 2.0.11 hangs up on whoever publishes what the ACL denies.
            "max_queued_messages 100000",
            f"persistence_location {store}/",
            *(lines or ("allow_anonymous true",)),
        ]
        self._config.write_text("\n".join(settings) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [self._program, "-c", self._config], stdout=self._log, stderr=self._log
        )
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            assert time.monotonic() < deadline, "mosquitto did not start"
            assert self._process.poll() is None, "mosquitto ended at once"
            time.sleep(0.02)

    @property
    def uri(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def save(self) -> None:
        """Have sessions and retained messages written to disk."""
        assert self._process is not None
        before = self._saved.stat().st_ino if self._saved.exists() else None
        self._process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + PATIENCE_S
        # It writes a new file and gives it the old one's name.
        while not self._saved.exists() or self._saved.stat().st_ino == before:
            assert time.monotonic() < deadline, "mosquitto did not save"
            time.sleep(0.02)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE_S)
            self._process = None

    def close(self) -> None:
        self.end()
        self._log.close()


@pytest.fixture
def mosquitto(
    require_program: Callable[[str], Path], tmp_path: Path
) -> Iterator[Callable[..., Mosquitto]]:
    """A function that starts a mosquitto, with lines of configuration if given."""
    brokers: list[Mosquitto] = []
    program = require_program("mosquitto")

    def start(*lines: str, running: bool = True) -> Mosquitto:
        broker = Mosquitto(program, tmp_path, lines)
        brokers.append(broker)
        if running:
            broker.start()
        return broker

    yield start
    for broker in brokers:
        broker.close()


@dataclass(frozen=True)
class Received:
    topic: str
    payload: bytes
    retain: bool
    expiry_s: int | None
    content_type: str | None


class Subscriber:
    """Hears everything under `fer/v1/`; its session outlives its connection and the broker."""

    def __init__(self, port: int, *, version: str = "5", username: str = "") -> None:
        five = version == "5"
        self.messages: list[Received] = []
        self._subscribed = threading.Event()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"subscriber-{secrets.token_hex(4)}",
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            clean_session=None if five else False,
        )
        self._client.on_connect = lambda *_: self._client.subscribe("fer/v1/#", qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._received
        self._client.reconnect_delay_set(1, 1)
        if username:
            self._client.username_pw_set(username, "right")
        properties = Properties(PacketTypes.CONNECT) if five else None
        if properties is not None:
            properties.SessionExpiryInterval = 3600
        self._client.connect("127.0.0.1", port, properties=properties, **_clean_start(five=five))
        self._client.loop_start()
        assert self._subscribed.wait(PATIENCE_S), "the subscriber got no answer"

    def _received(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        self.messages.append(
            Received(
                topic=message.topic,
                payload=bytes(message.payload),
                retain=bool(message.retain),
                expiry_s=getattr(message.properties, "MessageExpiryInterval", None),
                content_type=getattr(message.properties, "ContentType", None),
            )
        )

    def on(self, end: str) -> list[Received]:
        """Return what came on topics that end so, in order."""
        return [message for message in list(self.messages) if message.topic.endswith(end)]

    def last(self, end: str) -> bytes | None:
        """Return the payload that came last on topics that end so; None before the first."""
        came = self.on(end)
        return came[-1].payload if came else None

    def states(self, end: str) -> list[str]:
        """Return the states that status messages on topics that end so told, in order."""
        return [json.loads(message.payload)["state"] for message in self.on(end)]

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(PATIENCE_S)

    def close(self) -> None:
        self._client.disconnect()
        # paho's thread forgets itself when it ends, which may be amid this call: then it has ended.
        with contextlib.suppress(AttributeError):
            self._client.loop_stop()


def _clean_start(*, five: bool) -> dict[str, bool]:
    return {"clean_start": False} if five else {}


@pytest.fixture
def subscribe() -> Iterator[Callable[..., Subscriber]]:
    """A function that starts a subscriber at a port."""
    subscribers: list[Subscriber] = []

    def start(port: int, *, version: str = "5", username: str = "") -> Subscriber:
        subscribers.append(Subscriber(port, version=version, username=username))
        return subscribers[-1]

    yield start
    for subscriber in subscribers:
        subscriber.close()


@dataclass(frozen=True)
class Hub:
    """A broker, and a subscriber that hears all of it."""

    broker: Mosquitto
    listener: Subscriber


@pytest.fixture
def hub(mosquitto: Callable[..., Mosquitto], subscribe: Callable[..., Subscriber]) -> Hub:
    """A mosquitto that lets everybody in, and a subscriber there."""
    broker = mosquitto()
    return Hub(broker, subscribe(broker.port))


class Wire:
    """A TCP proxy to a port of this machine that cuts, stalls, or hangs up when told."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.accepted_s: list[float] = []
        self.stalled = False
        self.hang_up_after_first_packet = False
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._cut = threading.Event()
        self._closing = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._thread = threading.Thread(target=self._run, name="wire")
        self._thread.start()

    @property
    def accepted(self) -> int:
        """How many connections there were."""
        return len(self.accepted_s)

    def cut(self) -> None:
        """Reset all connections; new ones are let through."""
        self._cut.set()
        while self._cut.is_set():
            time.sleep(0.005)

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        self._server.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            ends = [] if self.stalled else list(self._pairs)
            readable, _, _ = select.select([self._server, *ends], [], [], 0.01)
            for end in readable:
                if end is self._server:
                    self._accept()
                elif end in self._pairs:
                    self._forward(end)
            if self._cut.is_set():
                self._drop_all()
                self._cut.clear()
        self._drop_all()

    def _accept(self) -> None:
        near, _ = self._server.accept()
        self.accepted_s.append(time.monotonic())
        try:
            far = socket.create_connection(("127.0.0.1", self.target), PATIENCE_S)
        except OSError:
            near.close()
            return
        self._pairs[near], self._pairs[far] = far, near

    def _forward(self, end: socket.socket) -> None:
        try:
            content = end.recv(65536)
            if content and not self.hang_up_after_first_packet:
                self._pairs[end].sendall(content)
                return
        except OSError:
            pass
        self._drop(end)

    def _drop(self, end: socket.socket) -> None:
        for one in (end, self._pairs.pop(end)):
            self._pairs.pop(one, None)
            one.close()

    def _drop_all(self) -> None:
        while self._pairs:
            self._drop(next(iter(self._pairs)))


@pytest.fixture
def wire() -> Iterator[Callable[[int], Wire]]:
    """A function that lays a wire to a port."""
    wires: list[Wire] = []

    def lay(target: int) -> Wire:
        wires.append(Wire(target))
        return wires[-1]

    yield lay
    for each in wires:
        each.close()


@dataclass(frozen=True)
class Certificates:
    """A CA of our own, and certificates it signed for 127.0.0.1 and for a client."""

    ca: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path


@pytest.fixture(scope="session")
def certificates(
    require_program: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    openssl = require_program("openssl")

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    run("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test CA",
        "-addext", "keyUsage=critical,keyCertSign,cRLSign")  # fmt: skip
    (folder / "server.ext").write_text("subjectAltName=IP:127.0.0.1\n")
    (folder / "client.ext").write_text("extendedKeyUsage=clientAuth\n")
    for name in ("server", "client"):
        run("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-out", f"{name}.pem", "-extfile", f"{name}.ext")  # fmt: skip
    return Certificates(
        ca=folder / "ca.pem",
        server=folder / "server.pem",
        server_key=folder / "server.key",
        client=folder / "client.pem",
        client_key=folder / "client.key",
    )


@pytest.fixture
def passwords(require_program: Callable[[str], Path], tmp_path: Path) -> tuple[str, ...]:
    """Lines that let in only the user `fer` with the password `right`."""
    path = tmp_path / "passwords"
    path.touch()
    subprocess.run(
        [require_program("mosquitto_passwd"), "-b", path, "fer", "right"],
        check=True,
        capture_output=True,
    )
    return ("allow_anonymous false", f"password_file {path}")


@pytest.fixture
def as_frame() -> Callable[[Bgr], Frame]:
    """A function that makes a frame of a colour picture."""

    def make(bgr: Bgr) -> Frame:
        luma = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY), np.uint8)
        return Frame(luma=luma, captured_ns=0, number=0, to_bgr=lambda: bgr)

    return make


@pytest.fixture(scope="session")
def yunet_file(shared: Path) -> Path:
    return shared / "models" / "yunet_s_dynamic.onnx"


@pytest.fixture(scope="session")
def yunet(yunet_file: Path) -> OnnxSession:
    return OnnxSession(yunet_file)


@pytest.fixture(scope="session")
def astronaut(shared: Path) -> Bgr:
    """Portrait of one person, (512, 512, 3)."""
    return np.asarray(cv2.imread(str(shared / "media" / "astronaut.png")), np.uint8)


@pytest.fixture(scope="session")
def clip_frames(shared: Path) -> list[Bgr]:
    """Every seventh frame of three clips, with none to two faces of 15 to 94 pixels."""
    frames: list[Bgr] = []
    for path in sorted((shared / "media").glob("*.gif")):
        capture = cv2.VideoCapture(str(path))
        clip = []
        while (read := capture.read())[0]:
            clip.append(np.asarray(read[1], np.uint8))
        capture.release()
        frames += clip[::7]
    return frames
