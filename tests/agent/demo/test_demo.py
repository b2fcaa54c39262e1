"""The demo from end to end: scene or clip, real networks, embedded broker, subscriber."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from fer_agent.cli import app
from fer_agent.config.model import (
    AgentConfig,
    CameraConfig,
    ClassifierConfig,
    DeploymentConfig,
    DetectorConfig,
    DeviceConfig,
    ModelsConfig,
    MqttConfig,
    SmootherConfig,
)
from fer_agent.demo import run as demo
from fer_agent.demo.run import DEVICE_ID, SCENE, Demo, DemoOptions, DemoSummary
from fer_agent.demo.scene import TOUR_S, Tour
from fer_agent.errors import CameraError, ModelFileError, UsageError
from fer_agent.models.store import file_sha256
from fer_agent.watch.listener import Arrival, ReceivedMessage, Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from click.testing import Result

LABELS = ("angry", "happy", "sad")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with a tiny classifier that takes bright faces for happy ones."""
    folder = tmp_path_factory.mktemp("store") / "tiny"
    folder.mkdir()
    nodes = [
        helper.make_node("Cast", ["crop"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    weights = np.zeros((48 * 48, len(LABELS)), np.float32)
    weights[:, 1] = 0.02 / (48 * 48)
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("crop", TensorProto.UINT8, ["N", 1, 48, 48])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", len(LABELS)])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "model.onnx"))
    manifest = {
        "schema_version": 1,
        "name": "tiny",
        "version": "1.0.0",
        "task": "facial-emotion",
        "files": [
            {
                "path": "model.onnx",
                "precision": "fp32",
                "sha256": file_sha256(folder / "model.onnx"),
                "bytes": (folder / "model.onnx").stat().st_size,
            }
        ],
        "input": {"shape": ["N", 1, 48, 48], "dtype": "uint8", "layout": "NCHW", "colour": "gray"},
        "labels": LABELS,
        "preprocessing": "in-graph",
        "calibration": {},
        "parameters": weights.size,
        "macs": weights.size,
        "provenance": {
            "recipe": "made by a test",
            "seed": 0,
            "commit": "0" * 40,
            "data_sha256": "0" * 64,
            "epochs": 0,
            "device": "cpu",
            "created": "2025-01-01T00:00:00Z",
        },
        "licence": "Apache-2.0",
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder.parent


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.fixture
def command(store: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """A function that runs `fer-agent demo` with the tests' settings, in this process."""
    # Private: the command has no option for the models and the detector.
    monkeypatch.setattr(demo, "_settings", lambda _options: settings(store))
    return lambda *arguments: CliRunner().invoke(app, ["demo", *arguments])


def settings(store: Path, source: str = SCENE) -> AgentConfig:
    return AgentConfig(
        device=DeviceConfig(id=DEVICE_ID),
        deployment=DeploymentConfig(context="entertainment"),
        camera={"main": CameraConfig(source=source)},
        detector=DetectorConfig(backend="haar"),
        classifier=ClassifierConfig(model="tiny"),
        smoother=SmootherConfig(update_s=0.5),
        models=ModelsConfig(path=store),
    )


def play(
    show: Demo, *, stop_at_first_event: bool = False
) -> tuple[DemoSummary, list[ReceivedMessage]]:
    arrivals: list[Arrival] = []

    def on_arrival(arrived: Arrival) -> None:
        arrivals.append(arrived)
        if stop_at_first_event and isinstance(arrived, ReceivedMessage) and arrived.event():
            show.stop()

    try:
        show.open()
        summary = show.run(on_arrival)
    finally:
        show.close()
    return summary, [arrived for arrived in arrivals if isinstance(arrived, ReceivedMessage)]


def test_what_the_agent_publishes_is_what_the_subscriber_receives(store: Path) -> None:
    summary, received = play(Demo(DemoOptions(seconds=4, settings=settings(store))))
    events = [event for message in received if (event := message.event())]
    kinds = [event.type.split(".")[2] for event in events]

    assert summary.lost == 0
    assert summary.events_published == summary.events_received == len(events)
    assert summary.frames > 1
    assert summary.fps > 0
    assert summary.tracks == 1
    assert summary.emotions == {events[0].subject: "happy"}
    assert kinds[0] == "started"
    assert kinds[-1] == "ended"
    assert set(kinds[1:-1]) == {"updated"}
    states = [
        json.loads(message.payload)["state"]
        for message in received
        if message.topic == f"fer/v1/{DEVICE_ID}/status"
    ]
    assert states[-2:] == ["online", "stopped"]


class SlowToSayGoodbye(Watcher):
    """Hears `stopped` only when the agent is gone and the broker has nothing else left."""

    def __init__(self, config: MqttConfig) -> None:
        super().__init__(config)
        self._goodbyes: list[ReceivedMessage] = []

    def next(self, timeout_s: float) -> Arrival | None:
        arrived = super().next(timeout_s)
        if isinstance(arrived, ReceivedMessage) and is_goodbye(arrived):
            self._goodbyes.append(arrived)
            return None
        agent_is_gone = not any(
            each.name.startswith("demo-agent") for each in threading.enumerate()
        )
        if arrived is None and agent_is_gone and self._goodbyes:
            return self._goodbyes.pop(0)
        return arrived


class NeverSaysGoodbye(Watcher):
    """Never hears `stopped`."""

    def next(self, timeout_s: float) -> Arrival | None:
        arrived = super().next(timeout_s)
        return None if isinstance(arrived, ReceivedMessage) and is_goodbye(arrived) else arrived


def is_goodbye(message: ReceivedMessage) -> bool:
    return message.topic.endswith("/status") and b'"stopped"' in message.payload


def test_the_goodbye_is_waited_for_when_every_event_has_come(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "Watcher", SlowToSayGoodbye)
    show = Demo(DemoOptions(seconds=TOUR_S, settings=settings(store)))
    summary, received = play(show, stop_at_first_event=True)

    assert summary.lost == 0
    assert any(is_goodbye(message) for message in received)


def test_a_goodbye_that_never_comes_is_not_waited_for_for_ever(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "Watcher", NeverSaysGoodbye)
    monkeypatch.setattr(demo, "_DELIVERY_S", 0.5)  # private, shortened to save the test's time
    show = Demo(DemoOptions(seconds=TOUR_S, settings=settings(store)))
    summary, received = play(show, stop_at_first_event=True)

    assert summary.events_published > 0
    assert not any(is_goodbye(message) for message in received)


def test_stop_ends_it_early_and_in_good_order(store: Path) -> None:
    show = Demo(DemoOptions(seconds=TOUR_S, settings=settings(store)))
    summary, received = play(show, stop_at_first_event=True)
    kinds = [event.type for message in received if (event := message.event())]

    assert summary.seconds < TOUR_S
    assert summary.lost == 0
    assert kinds[0] == "fer.track.started.v1"
    assert kinds[-1] == "fer.track.ended.v1"


def test_it_shows_a_given_clip_and_ends_with_it(store: Path, tmp_path: Path) -> None:
    scene = Tour()
    for number in range(100, 112):
        cv2.imwrite(str(tmp_path / f"{number}.png"), scene.draw(number))
    config = settings(store, str(tmp_path))
    # None of the few pictures is left out on a busy machine.
    fast = config.camera["main"].model_copy(update={"pace": "fast"})
    config = config.model_copy(update={"camera": {"main": fast}})

    summary, _ = play(Demo(DemoOptions(source=str(tmp_path), settings=config)))

    assert summary.frames > 0
    assert summary.tracks == 2
    assert summary.lost == 0


def test_seconds_also_end_a_given_source(store: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), Tour().draw(100))
    config = settings(store, str(tmp_path))
    looping = config.camera["main"].model_copy(update={"loop": True})
    config = config.model_copy(update={"camera": {"main": looping}})

    summary, _ = play(Demo(DemoOptions(seconds=1, source=str(tmp_path), settings=config)))

    assert summary.seconds >= 1
    assert summary.lost == 0


def test_the_command_prints_a_line_an_event_and_then_the_summary(
    command: Callable[..., Result],
) -> None:
    result = command("--json", "--seconds", "3")

    assert result.exit_code == 0
    *events, last = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["payload"]["type"] for event in events][-1] == "fer.track.ended.v1"
    assert last["summary"]["events_received"] == len(events)
    assert last["summary"]["lost"] == 0


def test_the_command_prints_plain_lines_where_no_terminal_is(
    command: Callable[..., Result],
) -> None:
    result = command("--seconds", "3")

    assert result.exit_code == 0
    assert "camera main track 1 started: happy" in result.stdout
    assert "0 lost" in result.stdout
    assert "\x1b" not in result.stdout


def test_a_missing_clip_is_an_error_with_a_remedy(store: Path, tmp_path: Path) -> None:
    gone = str(tmp_path / "gone.mp4")

    with pytest.raises(CameraError, match=r"gone\.mp4") as caught:
        play(Demo(DemoOptions(source=gone, settings=settings(store, gone))))

    assert caught.value.remedy


def test_a_missing_model_is_an_error_and_leaves_nothing_running(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError) as caught:
        play(Demo(DemoOptions(settings=settings(tmp_path))))

    assert caught.value.exit_code == 78


def test_running_before_opening_is_an_error() -> None:
    with pytest.raises(UsageError):
        Demo(DemoOptions()).run(lambda _arrived: None)


def test_the_summary_is_one_line_of_json_and_a_few_of_text() -> None:
    summary = DemoSummary(
        seconds=24.0,
        frames=480,
        fps=20.0,
        tracks=2,
        events_published=9,
        events_received=9,
        duplicates=1,
        lost=0,
        emotions={"1": "happy", "2": "sad"},
    )

    assert "\n" not in summary.as_json()
    written = json.loads(summary.as_json())
    assert written["schema_version"] == 1
    assert written["summary"]["lost"] == 0
    assert written["summary"]["emotions"] == {"1": "happy", "2": "sad"}
    assert "9 events published, 9 received, 0 lost" in summary.as_text()
    assert "1: happy, 2: sad" in summary.as_text()
