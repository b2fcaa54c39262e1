"""The main job as a process of its own: `fer-agent run` on real clips, against a real broker."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import jsonschema
import numpy as np
import onnxruntime
import pytest
from PIL import Image

from fer_agent.camera.backends.clips import play
from fer_agent.camera.backends.replay import make_frame
from fer_agent.config.model import DetectorConfig
from fer_agent.detector.yunet import YuNetDetector
from fer_agent.inference.onnx import OnnxSession
from fer_agent.models.store import find_model
from fer_agent.mqtt import schemas
from fer_agent.vision.crop import crop_faces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.broker

END_S = 120.0
"""What a process may take to end on a busy machine."""
TWO_PEOPLE = "media/head-pose-face-detection-female-and-male.gif"
MODEL = "microexpnet-ferplus"


class AgentRunner:
    """Starts `fer-agent` with YuNet from the shared folder and nothing of this user's own."""

    def __init__(self, home: Path, shared: Path) -> None:
        self.home = home
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("FER_")},
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "FER_AGENT__DEVICE__ID": "fer-test",
            "FER_AGENT__MODELS__PATH": str(home / "models"),
            "FER_AGENT__DETECTOR__MODEL_FILE": str(shared / "models" / "yunet_s_dynamic.onnx"),
        }
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str, **settings: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "fer_agent.cli", *arguments],
            env={**self.environment, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def run(self, *arguments: str, **settings: str) -> tuple[int, str]:
        """Run to the end; return the exit status and stderr."""
        process = self.start("run", "--context", "research", *arguments, **settings)
        _, stderr = process.communicate(timeout=END_S)
        return process.returncode, stderr


@pytest.fixture
def runner(tmp_path: Path, shared: Path) -> Iterator[AgentRunner]:
    runner = AgentRunner(tmp_path, shared)
    yield runner
    for process in runner.started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def events_of(messages: list[Any]) -> list[dict[str, Any]]:
    return [json.loads(message.payload) for message in messages]


def kinds_by_track(events: list[dict[str, Any]]) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for event in events:
        kinds.setdefault(event["subject"], []).append(event["type"].split(".")[2])
    return kinds


def assert_started_and_ended_once(kinds: dict[str, list[str]]) -> None:
    for track, told in kinds.items():
        assert told[0] == "started", track
        assert told[-1] == "ended", track
        assert set(told[1:-1]) <= {"updated"}, track


def test_two_people_in_a_clip_are_two_tracks_at_the_broker(
    runner: AgentRunner,
    shared: Path,
    hub: Any,
    wait_for: Callable[..., None],
) -> None:
    code, stderr = runner.run(
        "--source", str(shared / TWO_PEOPLE), "--broker", hub.broker.uri,
        # Told again every second: the clip is shorter than the default of five.
        FER_AGENT__SMOOTHER__UPDATE_S="1.0",
    )  # fmt: skip
    assert code == 0, stderr
    wait_for(lambda: hub.listener.states("fer-test/status")[-1:] == ["stopped"])
    # Whoever connects only when the first picture is there says at once that it is online.
    assert hub.listener.states("fer-test/status")[-2:] == ["online", "stopped"]

    events = events_of(hub.listener.on("cameras/main/events"))
    schema = schemas.documents()["event.schema.json"]
    for event in events:
        jsonschema.validate(event, schema)
    kinds = kinds_by_track(events)
    assert sorted(kinds) == ["1", "2"]
    assert_started_and_ended_once(kinds)
    assert all("updated" in told for told in kinds.values())
    sequence = [int(event["sequence"]) for event in events]
    assert sequence == list(range(1, len(events) + 1))
    model = find_model(MODEL)
    assert {event["data"]["model"]["sha256"] for event in events} == {model.manifest.file().sha256}
    last = json.loads(hub.listener.last("cameras/main/state"))
    assert (last["dominant"], last["faces"]) == ("nobody", [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_signal_ends_open_tracks_says_goodbye_and_exits_with_0(
    runner: AgentRunner,
    shared: Path,
    hub: Any,
    wait_for: Callable[..., None],
    number: signal.Signals,
) -> None:
    process = runner.start(
        "run", "--context", "research", "--source", str(shared / TWO_PEOPLE),
        "--broker", hub.broker.uri,
        FER_AGENT__CAMERA__MAIN__LOOP="true",
    )  # fmt: skip
    wait_for(lambda: hub.listener.on("cameras/main/events"))
    process.send_signal(number)
    _, stderr = process.communicate(timeout=END_S)
    assert process.returncode == 0, stderr
    wait_for(lambda: hub.listener.states("fer-test/status")[-1:] == ["stopped"])
    kinds = kinds_by_track(events_of(hub.listener.on("cameras/main/events")))
    assert kinds
    assert_started_and_ended_once(kinds)


def test_a_killed_agent_is_announced_as_offline_by_its_will(
    runner: AgentRunner,
    shared: Path,
    hub: Any,
    wait_for: Callable[..., None],
) -> None:
    process = runner.start(
        "run", "--context", "research", "--source", str(shared / TWO_PEOPLE),
        "--broker", hub.broker.uri,
        FER_AGENT__CAMERA__MAIN__LOOP="true",
    )  # fmt: skip
    wait_for(lambda: "online" in hub.listener.states("fer-test/status"))
    process.kill()
    wait_for(lambda: hub.listener.states("fer-test/status")[-1:] == ["offline"])
    sessions = {json.loads(m.payload)["session"] for m in hub.listener.on("fer-test/status")}
    assert len(sessions) == 1


def test_a_broker_that_is_down_does_not_stop_the_record(
    runner: AgentRunner, shared: Path, tmp_path: Path
) -> None:
    record = tmp_path / "record.jsonl"
    code, stderr = runner.run(
        "--source", str(shared / TWO_PEOPLE), "--broker", "mqtt://127.0.0.1:9",
        "--record", str(record),
        FER_AGENT__CAMERA__MAIN__PACE="fast",
    )  # fmt: skip
    assert code == 0, stderr
    assert stderr.count("cannot reach the broker") == 1
    header, *frames = map(json.loads, record.read_text(encoding="utf-8").splitlines())
    assert header["model"] == MODEL
    with Image.open(shared / TWO_PEOPLE) as clip:
        assert len(frames) == clip.n_frames
    faces = [face for frame in frames for face in frame["faces"]]
    assert {face["track_id"] for face in faces} == {1, 2}
    assert all(sum(face["probs"].values()) == pytest.approx(1.0, abs=1e-4) for face in faces)


def test_the_record_has_the_probabilities_of_the_models_own_evaluation(
    runner: AgentRunner, shared: Path, tmp_path: Path
) -> None:
    """Read the files as any other program would: ONNX Runtime, the manifest, a softmax."""
    record = tmp_path / "record.jsonl"
    code, stderr = runner.run(
        "--source", str(shared / TWO_PEOPLE), "--broker", "none", "--record", str(record),
        FER_AGENT__CAMERA__MAIN__PACE="fast",
        FER_AGENT__DETECTOR__REST_S="0",
        FER_AGENT__TRACKER__CONFIRM_FRAMES="1",
    )  # fmt: skip
    assert code == 0, stderr
    folder = find_model(MODEL).folder
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    temperature = manifest["calibration"]["temperature"]
    assert abs(temperature - 1) > 0.1  # else it would not show when nobody divides by it
    session = onnxruntime.InferenceSession(folder / manifest["files"][0]["path"])
    yunet = OnnxSession(shared / "models" / "yunet_s_dynamic.onnx")
    detector = YuNetDetector(yunet, DetectorConfig())

    _, *lines = map(json.loads, record.read_text(encoding="utf-8").splitlines())
    compared = 0
    for picture, line in zip(play(shared / TWO_PEOPLE, 30.0), lines, strict=True):
        frame = make_frame(picture.bgr, line["mono_ns"], line["frame"])
        found = detector.detect(frame).xyxy  # as the record's boxes, but not rounded
        for face in line["faces"]:
            (row,) = np.flatnonzero(np.abs(found - face["xyxy"]).max(axis=1) < 0.02)
            crops = crop_faces(frame.luma, found[[row]], tuple(manifest["input"]["shape"][2:]))
            (logits,) = session.run(None, {session.get_inputs()[0].name: crops})
            powers = np.exp(logits[0].astype(np.float64) / temperature)
            expected = dict(zip(manifest["labels"], powers / powers.sum(), strict=True))
            assert face["probs"] == pytest.approx(expected, abs=5e-6)
            compared += 1
    assert compared > 80


def test_max_frames_ends_the_run(runner: AgentRunner, shared: Path, tmp_path: Path) -> None:
    record = tmp_path / "record.jsonl"
    code, stderr = runner.run(
        "--source", str(shared / TWO_PEOPLE), "--broker", "none",
        "--record", str(record), "--max-frames", "7",
    )  # fmt: skip
    assert code == 0, stderr
    assert len(record.read_text(encoding="utf-8").splitlines()) == 1 + 7


def test_a_source_on_the_command_line_keeps_the_camera_keys_of_the_environment(
    runner: AgentRunner, shared: Path, tmp_path: Path
) -> None:
    record = tmp_path / "record.jsonl"
    code, stderr = runner.run(
        "--source", str(shared / "media" / "astronaut.png"), "--broker", "none",
        "--record", str(record), "--max-frames", "9",
        FER_AGENT__CAMERA__MAIN__LOOP="true",
        FER_AGENT__CAMERA__MAIN__PACE="fast",
        FER_AGENT__CAMERA__OTHER__SOURCE="/dev/video77",
    )  # fmt: skip
    assert code == 0, stderr
    header, *frames = map(json.loads, record.read_text(encoding="utf-8").splitlines())
    assert header["cameras"] == ["main"]
    assert len(frames) == 9


def test_boxes_of_a_turned_camera_are_those_of_its_own_picture(
    runner: AgentRunner,
    shared: Path,
    tmp_path: Path,
    hub: Any,
    wait_for: Callable[..., None],
) -> None:
    """An astronaut who hangs upside down is found when turned, and told where she hangs."""
    folder = tmp_path / "hanging"
    folder.mkdir()
    with Image.open(shared / "media" / "astronaut.png") as portrait:
        for number in range(8):
            portrait.convert("RGB").rotate(180).save(folder / f"{number}.png")
    code, stderr = runner.run(
        "--source", str(folder), "--broker", hub.broker.uri,
        FER_AGENT__CAMERA__MAIN__ROTATE="180",
        # No picture is left out on a busy machine: a face must be found in two.
        FER_AGENT__CAMERA__MAIN__PACE="fast",
    )  # fmt: skip
    assert code == 0, stderr
    wait_for(lambda: len(hub.listener.on("cameras/main/events")) == 2)
    left, top, right, bottom = events_of(hub.listener.on("cameras/main/events"))[0]["data"]["box"]
    # Upright her face is in the upper middle of the picture.
    assert 0.4 < (left + right) / 2 < 0.65
    assert 0.65 < (top + bottom) / 2 < 0.9


def test_without_a_detector_file_and_offline_the_cascade_stands_in(
    runner: AgentRunner, shared: Path, tmp_path: Path
) -> None:
    del runner.environment["FER_AGENT__DETECTOR__MODEL_FILE"]
    record = tmp_path / "record.jsonl"
    code, stderr = runner.run(
        "--source", str(shared / "media" / "astronaut.png"), "--broker", "none",
        "--record", str(record),
        https_proxy="http://127.0.0.1:9",
        FER_AGENT__TRACKER__CONFIRM_FRAMES="1",
    )  # fmt: skip
    assert code == 0, stderr
    assert stderr.count("Haar cascade") == 1
    frame = json.loads(record.read_text(encoding="utf-8").splitlines()[1])
    assert len(frame["faces"]) == 1


def copied_model(runner: AgentRunner) -> Path:
    model = find_model(MODEL)
    copy = runner.home / "models" / MODEL
    shutil.copytree(model.folder, copy)
    return copy


def test_a_truncated_model_is_refused_before_anything_starts(
    runner: AgentRunner, shared: Path
) -> None:
    file = copied_model(runner) / find_model(MODEL).manifest.file().path
    file.write_bytes(file.read_bytes()[:1000])
    code, stderr = runner.run("--source", str(shared / TWO_PEOPLE), "--broker", "none")
    assert code == 78
    assert "has 1000 bytes" in stderr


def test_a_manifest_with_foreign_labels_is_refused(runner: AgentRunner, shared: Path) -> None:
    path = copied_model(runner) / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["labels"][0] = "furious"
    path.write_text(json.dumps(manifest), encoding="utf-8")
    code, stderr = runner.run("--source", str(shared / TWO_PEOPLE), "--broker", "none")
    assert code == 78
    assert "furious" in stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--source", "nowhere.mp4", "--broker", "none"], 78, "nowhere.mp4"),
        (["--source", "/dev/null", "--max-frames", "0"], 2, "max-frames"),
        (["--source", "ftp://camera", "--broker", "none"], 78, "ftp://"),
        (["--source", "x", "--broker", "http://localhost"], 78, "mqtt://"),
        ([], 78, "camera"),
    ],
    ids=["missing file", "no frames", "unknown address", "broker address", "no camera"],
)
def test_wrong_use_ends_with_its_code_and_says_why(
    runner: AgentRunner, arguments: list[str], code: int, words: str
) -> None:
    ended, stderr = runner.run(*arguments)
    assert (ended, words in stderr, "Traceback" in stderr) == (code, True, False), stderr


def test_a_camera_that_is_not_there_is_a_state_and_not_the_end(
    runner: AgentRunner,
    hub: Any,
    wait_for: Callable[..., None],
) -> None:
    process = runner.start(
        "run", "--context", "research", "--source", "/dev/video77",
        "--broker", hub.broker.uri,
    )  # fmt: skip
    wait_for(lambda: "degraded" in hub.listener.states("fer-test/status"))
    wait_for(lambda: hub.listener.on("cameras/main/status"))
    status = json.loads(hub.listener.last("cameras/main/status"))
    assert status["state"] == "offline"
    assert "/dev/video77" in status["reason"]
    wait_for(lambda: hub.listener.on("alerts/camera-main"))
    assert "/dev/video77" in json.loads(hub.listener.last("alerts/camera-main"))["text"]
    time.sleep(0.5)
    assert process.poll() is None
    process.terminate()
    process.communicate(timeout=END_S)
    assert process.returncode == 0
