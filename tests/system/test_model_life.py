"""The whole life of a model: published, synced, replaced while an agent runs, refused, rotated.

Everything is real: `fer-train publish` and `fer-agent` as processes, a web server, mosquitto.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fer_agent.models.store import find_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(1500)]

NAME = "life"
PATIENCE_S = 300.0
"""Nothing takes as long on a machine that is merely busy."""

CLIP = "media/head-pose-face-detection-female-and-male.gif"


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def versions() -> ModuleType:
    """The module beside this one that makes models; it needs the trainer's onnx."""
    pytest.importorskip("onnx", reason="onnx comes with the trainer extra")
    path = Path(__file__).with_name("model_versions.py")
    spec = importlib.util.spec_from_file_location("model_versions", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Workstation:
    """Where models are published: a repository, its keys, their password."""

    folder: Path

    def publish(self, command: str, *words: object) -> str:
        """Run `fer-train publish` and return what it said."""
        (self.folder / "password").write_text("correct horse battery staple\n")
        done = subprocess.run(
            [
                Path(sys.executable).with_name("fer-train"), "publish", command, *map(str, words),
                "--repository", self.folder / "repository", "--keys", self.folder / "keys",
                "--password-file", self.folder / "password", "--yes",
            ],
            check=False, capture_output=True, text=True, timeout=PATIENCE_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout


@dataclass
class Board:
    """A device: its store, its environment, and the processes on it."""

    folder: Path
    environment: dict[str, str]
    started: list[subprocess.Popen[str]] = field(default_factory=list)
    listeners: list[threading.Thread] = field(default_factory=list)

    @property
    def store(self) -> Path:
        return self.folder / "models"

    def start(self, *words: str, **settings: str) -> subprocess.Popen[str]:
        with (self.folder / f"{len(self.started)}.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "fer_agent.cli", *words],
                env={**self.environment, **settings},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.started.append(process)
        return process

    def sync(self) -> tuple[int, dict[str, Any], str]:
        """Run `fer-agent models sync --json`; returns exit status, answer and stderr."""
        process = self.start("models", "sync", "--json")
        out, _ = process.communicate(timeout=PATIENCE_S)
        said = (self.folder / f"{len(self.started) - 1}.log").read_text()
        return process.returncode, json.loads(out) if out else {}, said

    def active(self) -> tuple[str, str]:
        """Return version and hash of what a start would load now."""
        manifest = find_model(NAME, self.store).manifest
        return manifest.version, manifest.file().sha256

    def journal(self) -> str:
        path = self.store / ".state" / "activation" / f"{NAME}.json"
        return str(json.loads(path.read_text())["phase"])

    def listen(self, broker: str) -> list[dict[str, Any]]:
        """Keep `fer-agent watch` running; returns the list that its messages go to."""
        heard: list[dict[str, Any]] = []
        process = self.start("watch", "--broker", broker, "--json")

        def read() -> None:
            assert process.stdout is not None
            heard.extend(json.loads(line) for line in iter(process.stdout.readline, ""))

        self.listeners.append(threading.Thread(target=read, daemon=True))
        self.listeners[-1].start()
        return heard

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()
        for thread in self.listeners:
            thread.join(PATIENCE_S)
        for process in self.started:
            if process.stdout is not None:
                process.stdout.close()


@pytest.fixture
def workstation(tmp_path: Path) -> Workstation:
    (tmp_path / "workstation").mkdir()
    return Workstation(tmp_path / "workstation")


@pytest.fixture
def address(workstation: Workstation) -> Iterator[str]:
    """A plain web server on the published folder."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    folder = workstation.folder / "repository"
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def broker(require_program: Callable[[str], Path], tmp_path: Path) -> Iterator[str]:
    program = require_program("mosquitto")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    config = tmp_path / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    log = (tmp_path / "mosquitto.log").open("wb")
    process = subprocess.Popen([program, "-c", config], stdout=log, stderr=log)

    def answers() -> bool:
        with socket.socket() as attempt:
            return attempt.connect_ex(("127.0.0.1", port)) == 0

    wait_for(answers, "mosquitto")
    yield f"mqtt://127.0.0.1:{port}"
    process.terminate()
    process.wait()
    log.close()


@pytest.fixture
def board(
    tmp_path: Path, shared: Path, workstation: Workstation, address: str, versions: ModuleType
) -> Iterator[Board]:
    """A board that was given the root; the repository has a face detector so far."""
    folder = tmp_path / "board"
    folder.mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("FER_")},
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "FER_AGENT__DEVICE__ID": "fer-test",
        "FER_AGENT__CLASSIFIER__MODEL": NAME,
        "FER_AGENT__MODELS__PATH": str(folder / "models"),
        "FER_AGENT__MODELS__REPOSITORY": address,
        "FER_AGENT__MODELS__ROOT_FILE": str(folder / "root.json"),
        # The machine has other work; a broken model is twenty times as slow.
        "FER_AGENT__MODELS__SLOWDOWN_LIMIT": "8",
        # The one that a sync brings, and no other.
        "FER_AGENT__DETECTOR__BACKEND": "yunet",
        "FER_AGENT__DETECTOR__DOWNLOAD": "false",
        "FER_AGENT__CAMERA__MAIN__SOURCE": str(shared / CLIP),
        # Every frame is processed, whatever else the machine does, and the clip never ends.
        "FER_AGENT__CAMERA__MAIN__PACE": "fast",
        "FER_AGENT__CAMERA__MAIN__LOOP": "true",
    }
    workstation.publish("init")
    detector = shared / "models" / "yunet_s_dynamic.onnx"
    workstation.publish("add", versions.write_detector(tmp_path / "yunet", detector))
    root = workstation.folder / "repository" / "metadata" / "1.root.json"
    (folder / "root.json").write_bytes(root.read_bytes())
    board = Board(folder, environment)
    yield board
    board.close()


def stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 0


def events_of(heard: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each["payload"] for each in list(heard) if each["topic"].endswith("/events")]


def lines_of(record: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a record that may still be written to."""
    text = record.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n")].splitlines()]


def test_the_whole_life_of_a_model(
    workstation: Workstation,
    board: Board,
    broker: str,
    versions: ModuleType,
    tmp_path: Path,
) -> None:
    # Published, and synced to a board that has nothing yet.
    workstation.publish("add", versions.write_version(tmp_path / "v1", "1.0.0", versions.first))
    code, _, said = board.sync()
    assert code == 0, said
    assert board.active()[0] == "1.0.0"
    old = board.active()[1]

    # The next version comes while an agent is busy with a clip.
    heard = board.listen(broker)
    record = tmp_path / "record.jsonl"
    agent = board.start(
        "run", "--context", "research", "--broker", broker, "--record", str(record),
        FER_AGENT__MODELS__CONFIRM_MINUTES="0.03",
    )  # fmt: skip
    wait_for(lambda: events_of(heard), "the first event")
    workstation.publish("add", versions.write_version(tmp_path / "v2", "1.1.0", versions.second))
    code, _, said = board.sync()
    assert code == 0, said
    assert board.active()[0] == "1.1.0"
    new = board.active()[1]
    wait_for(
        lambda: any(event["data"]["model"]["sha256"] == new for event in events_of(heard)),
        "an event of the new model",
    )
    wait_for(lambda: board.journal() == "confirmed", "the new model to prove itself")

    # A version that only the device can find out about is refused there, and not tried again.
    workstation.publish("add", versions.write_version(tmp_path / "v3", "1.2.0", versions.broken))
    code, _, said = board.sync()
    assert code == 76, said
    assert "times as long as the current model" in said
    code, answer, said = board.sync()
    assert code == 0, said
    assert {each["name"]: each["outcome"] for each in answer["models"]} == {
        NAME: "refused", "yunet": "current",
    }  # fmt: skip
    assert board.active() == ("1.1.0", new)
    wait_for(lambda: "times as long" in standing_alert(heard), "the alert")
    assert agent.poll() is None

    # New keys for those who sign, and a sync that learns of them.
    workstation.publish("rotate", "targets", "--new", "targets-next", "--remove", "targets-1")
    workstation.publish("rotate", "root", "--new", "root-next")
    workstation.publish("retire", NAME, "1.2.0")
    workstation.publish("add", versions.write_version(tmp_path / "v4", "1.3.0", versions.first))
    code, _, said = board.sync()
    assert code == 0, said
    version, newest = board.active()
    assert version == "1.3.0"
    wait_for(
        lambda: any(event["data"]["model"]["sha256"] == newest for event in events_of(heard)),
        "an event of the newest model",
    )
    wait_for(lambda: not standing_alert(heard), "the alert's end")
    wait_for(lambda: told_of_updates(heard), "the last word on updates")
    stop(agent)
    assert_no_frame_lost(lines_of(record), [old, new, newest])
    wait_for(lambda: said_goodbye(heard), "the goodbye")
    assert_events_follow(events_of(heard), lines_of(record), [old, new, newest])


def standing_alert(heard: list[dict[str, Any]]) -> str:
    said = [
        each["payload"] for each in list(heard) if each["topic"].endswith("/alerts/model-update")
    ]
    return str(said[-1]["text"]) if said and said[-1] else ""


def told_of_updates(heard: list[dict[str, Any]]) -> bool:
    """Whether the newest `info` has the versions that run, and the refusal before them."""
    info = [each["payload"] for each in list(heard) if each["topic"].endswith("/info")][-1]
    told, failure = info["updates"], info["updates"]["last_failure"]
    versions = {each["name"]: (each["current"], each["available"]) for each in told["models"]}
    return (
        versions == {NAME: ("1.3.0", "1.3.0"), "yunet": ("2023.3.0", "2023.3.0")}
        and info["models"]["classifier"]["version"] == "1.3.0"
        and info["models"]["detector"]["version"] == "2023.3.0"
        and failure is not None
        and "times as long" in failure["text"]
    )


def said_goodbye(heard: list[dict[str, Any]]) -> bool:
    said = [each["payload"] for each in list(heard) if each["topic"] == "fer/v1/fer-test/status"]
    return bool(said) and said[-1]["state"] == "stopped"


def assert_no_frame_lost(lines: list[dict[str, Any]], hashes: list[str]) -> None:
    """Every frame was classified, each by one model, and the models came one after another."""
    header, *frames = lines
    assert header["model_sha256"] == hashes[0]
    numbers = [frame["frame"] for frame in frames]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    seen = [frame.get("model", {}).get("sha256", hashes[0]) for frame in frames]
    turns = [sha256 for sha256, _ in itertools.groupby(seen)]
    assert turns == hashes
    for frame, sha256 in zip(frames, seen, strict=True):
        for face in frame["faces"]:
            assert len(face["probs"]) == (8 if sha256 == hashes[1] else 7)


def assert_events_follow(
    events: list[dict[str, Any]], lines: list[dict[str, Any]], hashes: list[str]
) -> None:
    """Each event names the model that saw its frame; none is missing."""
    sequence = [int(event["sequence"]) for event in events]
    assert sequence == list(range(1, len(sequence) + 1))
    model_at = {
        frame["mono_ns"]: frame.get("model", {}).get("sha256", hashes[0]) for frame in lines[1:]
    }
    for event in events:
        data = event["data"]
        assert data["model"]["sha256"] == model_at[data["mono_ns"]]
        assert len(data["probabilities"]) == (8 if data["model"]["sha256"] == hashes[1] else 7)


def test_a_model_on_probation_goes_back_when_the_agent_is_killed(
    workstation: Workstation, board: Board, versions: ModuleType, tmp_path: Path
) -> None:
    for number, (version, alter) in enumerate(
        [("1.0.0", versions.first), ("1.1.0", versions.second)]
    ):
        folder = versions.write_version(tmp_path / str(number), version, alter)
        workstation.publish("add", folder)
        code, _, said = board.sync()
        assert code == 0, said
        if version == "1.0.0":
            old = board.active()[1]
            agent = board.start(
                "run", "--context", "research", "--broker", "none",
                FER_AGENT__MODELS__CONFIRM_MINUTES="0.001",
            )  # fmt: skip
            wait_for(lambda: board.journal() == "confirmed", "the first version's proof")
            stop(agent)
    agent = board.start("run", "--context", "research", "--broker", "none")
    wait_for(lambda: board.journal() == "probation", "the probation")
    agent.kill()
    agent.wait()
    record = tmp_path / "record.jsonl"
    agent = board.start(
        "run", "--context", "research", "--broker", "none", "--record", str(record),
        "--max-frames", "5",
    )  # fmt: skip
    assert agent.wait(PATIENCE_S) == 0
    assert lines_of(record)[0]["model_sha256"] == old
    assert board.journal() == "rolled-back"
    code, answer, said = board.sync()
    assert code == 0, said
    (told,) = (each for each in answer["models"] if each["name"] == NAME)
    assert (told["outcome"], told["current"]) == ("refused", "1.0.0")
    assert "died" in told["reason"]
    assert "died" in answer["alert"]
