from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import cv2
import jsonschema
import numpy as np
import pytest

from fer_agent.bench import schema
from fer_agent.inference import available
from fer_agent.models.store import find_model
from fer_agent.system import board

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fer_agent.bench.record import BenchReport

PATIENCE_S = 900.0
ONE_MODEL = ("--model", "microexpnet-fer2013")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def settings(folder: Path) -> dict[str, str]:
    """The cascade as detector, which is always there, and a store in a folder."""
    return {
        "FER_AGENT__MODELS__PATH": str(folder / "store"),
        "FER_AGENT__DETECTOR__BACKEND": "haar",
    }


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """A function that starts `fer-agent bench` as a process, for a signal to end it."""

    def start_bench(*arguments: object) -> subprocess.Popen[str]:
        kept = {name: text for name, text in os.environ.items() if not name.startswith("FER_")}
        env = {"XDG_CONFIG_HOME": str(tmp_path), **settings(tmp_path)}
        # A shell in the background lets its children ignore Ctrl-C; a terminal does not.
        code = (
            "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "from fer_agent.cli import main; main()"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code, "bench", *map(str, arguments)],
            env=kept | env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        return process

    started: list[subprocess.Popen[str]] = []
    yield start_bench
    for process in started:
        with process:  # closes its pipes and waits for it
            process.kill()


@pytest.fixture
def bench(
    fer_agent: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> Callable[..., Any]:
    """A function that runs `fer-agent bench`; returns exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        done = fer_agent("bench", *arguments, **settings(tmp_path))
        return done.returncode, done.stdout, done.stderr

    return run


def valid(text: str) -> dict[str, Any]:
    report = json.loads(text)
    jsonschema.Draft202012Validator(
        schema.documents()["result.schema.json"], format_checker=jsonschema.FormatChecker()
    ).validate(report)
    assert isinstance(report, dict)
    return report


def test_everything_is_measured_and_the_result_fits_its_schema(
    bench: Callable[..., Any], tmp_path: Path
) -> None:
    quick = ["--runs", 4, "--warmup", 2, "--frames", 6, "--threads", 1, "--threads", 2]
    page = tmp_path / "page.md"
    code, stdout, stderr = bench(
        *ONE_MODEL,
        *quick,
        "--faces",
        1,
        "--faces",
        2,
        "--sustained",
        0.05,
        "--json",
        "--markdown",
        page,
    )
    assert code == 0, stderr
    report = valid(stdout)
    shown = {(one["subject"]["precision"], one["subject"]["threads"]) for one in report["networks"]}
    assert shown == {(kind, count) for kind in ("fp32", "fp16", "int8") for count in (1, 2)}
    for network in report["networks"]:
        assert network["latency_ms"]["n"] == 4
        assert network["input"] == "uint8 [1, 1, 48, 48]"
        assert network["memory"]["private_dirty"] > 0
    assert report["protocol"] == {"batch": 1, "warmup": 2, "runs": 4, "frames": 6}
    assert [(one["faces"], one["faces_seen"]) for one in report["pipelines"]] == [(1, 1), (2, 2)]
    for pipeline in report["pipelines"]:
        stages = pipeline["stages_ms"]
        assert {"capture", "detect", "track", "crop", "classify", "smooth"} <= set(stages)
        assert pipeline["frame_ms"]["p50"] >= stages["detect"]["p50"] > stages["track"]["p50"]
    assert report["sustained"]["samples"]
    assert report["machine"]["load_before"] is not None
    if board.read_state().temperature_c is None:
        assert report["before"]["temperature_c"] is None
    assert {row["board"] for row in report["paper"]} == {"Raspberry Pi 4", "Jetson Nano"}
    assert page.read_text(encoding="utf-8").count("![") == len(list(tmp_path.glob("page-*.svg")))
    assert "[1/6]" in stderr


def test_threads_must_be_at_least_one(bench: Callable[..., Any]) -> None:
    code, stdout, stderr = bench("--threads", 0)
    assert code == 2
    assert stdout == ""
    assert "Invalid value for '--threads'" in stderr


def test_a_clip_without_faces_says_so_before_anything_else(
    bench: Callable[..., Any], tmp_path: Path
) -> None:
    clip = tmp_path / "wall.png"
    cv2.imwrite(str(clip), np.full((240, 320, 3), 128, np.uint8))
    code, stdout, stderr = bench("--clip", clip, "--frames", 3, "--no-networks")
    assert code == 1
    assert stdout == ""
    assert "nobody's face was found in the 3 frames measured of" in stderr
    assert "wall.png" in stderr
    assert "leave --clip out" in stderr


def test_a_clip_that_is_not_there_is_named(bench: Callable[..., Any], tmp_path: Path) -> None:
    code, _, stderr = bench("--clip", tmp_path / "none.mp4")
    assert code == 69
    assert "there is no clip at" in stderr


def test_a_runtime_that_is_not_here_names_those_that_are(bench: Callable[..., Any]) -> None:
    if "tensorrt" in available.available():
        pytest.skip("this machine has TensorRT")
    code, stdout, stderr = bench("--runtime", "tensorrt")
    assert code == 69
    assert stdout == ""
    assert "the runtime 'tensorrt' is not on this machine, only: onnx" in stderr
    assert "fer-agent[jetson]" in stderr
    code, _, stderr = bench("--runtime", "tensorflow")
    assert code == 2
    assert "use one of: onnx, tensorrt" in stderr


def test_any_onnx_file_can_be_measured_and_an_odd_one_is_named(
    bench: Callable[..., Any], tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx comes with the trainer extra")
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [onnx.helper.make_tensor_value_info("x", kind, ["n", 3, "h"])],
        [onnx.helper.make_tensor_value_info("y", kind, ["n", 3, "h"])],
    )
    made = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8
    )
    path = tmp_path / "relu.onnx"
    path.write_bytes(made.SerializeToString())
    quick = ["--runs", 3, "--threads", 1, "--no-pipeline", "--model", path]

    code, stdout, stderr = bench(*quick, "--input-shape", "1,3,8", "--json")
    assert code == 0, stderr
    (network,) = valid(stdout)["networks"]
    assert network["input"] == "float32 [1, 3, 8]"
    assert network["subject"]["role"] == "other"

    code, _, stderr = bench(*quick)
    assert code == 78
    assert "whose size is left open" in stderr
    assert "--input-shape" in stderr

    path.write_bytes(b"odd" * 50)
    code, _, stderr = bench(*quick)
    assert code == 78
    assert "relu.onnx is not a model ONNX Runtime can load" in stderr

    code, _, stderr = bench("--model", tmp_path / "none.onnx")
    assert code == 78
    assert "no model file at" in stderr


def test_an_unknown_model_is_named_with_those_there_are(bench: Callable[..., Any]) -> None:
    code, _, stderr = bench("--model", "huge")
    assert code == 2
    assert "there is no model named 'huge'" in stderr
    assert "microexpnet-fer2013" in stderr


def test_an_interrupted_bench_shows_what_it_has(
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    process = start(*ONE_MODEL, "--runs", 1_000_000, "--threads", 1, "--warmup", 0, "--json")
    assert process.stderr is not None
    seen = process.stderr.readline()
    assert "[1/3]" in seen
    # The child has its handlers before it loads anything; until then it dies, and that is right.
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, stderr
    report = valid(stdout)
    assert report["interrupted"] is True
    assert report["pipelines"] == []


def test_a_measurement_ends_with_whoever_waits_for_it(tmp_path: Path) -> None:
    model = find_model(ONE_MODEL[1]).verified_file()
    task = {"kind": "network", "path": str(model), "runtime": "onnx", "threads": 1}
    task |= {"precision": "fp32", "shape": None, "store": str(tmp_path)}
    task |= {"warmup": 0, "runs": 1_000_000_000}
    with subprocess.Popen(
        [sys.executable, "-m", "fer_agent.bench.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        stdout, _ = process.communicate(json.dumps(task) + "\n", timeout=PATIENCE_S)
    assert process.returncode == 0
    assert json.loads(stdout.splitlines()[-1])["found"] is not None


def test_result_files_are_compared(
    bench: Callable[..., Any], tmp_path: Path, new_report: Callable[..., BenchReport]
) -> None:
    slow, fast = tmp_path / "slow.json", tmp_path / "fast.json"
    slow.write_text(new_report().model_dump_json())
    fast.write_text(new_report(speed=2.0).model_dump_json())
    code, stdout, _ = bench("compare", slow, fast)
    assert code == 0
    assert "fast.json against slow.json" in stdout
    assert "0.50" in stdout
    code, stdout, _ = bench("compare", slow, fast, "--json")
    jsonschema.validate(json.loads(stdout), schema.documents()["comparison.schema.json"])
    code, _, stderr = bench("compare", slow, tmp_path / "none.json")
    assert code == 2
    assert "none.json" in stderr
