from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fer_agent.bench.protocol import Protocol, StopFlag, measure, summary
from fer_agent.bench.subjects import parse_shape, thread_counts
from fer_agent.errors import ModelContractError, UsageError
from fer_agent.inference.noise import make_input
from fer_agent.system import memory


def test_the_paper_s_protocol_is_the_default() -> None:
    assert Protocol() == Protocol(warmup=100, runs=1000)


def test_a_measured_network_shares_its_process_with_neither_opencv_nor_pydantic() -> None:
    code = "import sys, fer_agent.bench.child, fer_agent.bench.network; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"cv2", "pydantic", "onnxruntime"} & set(done.stdout.split())


def test_warm_up_passes_are_made_and_not_counted() -> None:
    calls: list[int] = []
    durations_ns = measure(lambda: calls.append(1), Protocol(warmup=7, runs=5), StopFlag())
    assert len(calls) == 12
    assert len(durations_ns) == 5
    assert all(one >= 0 for one in durations_ns)


def test_a_measurement_that_is_stopped_keeps_what_it_has() -> None:
    stop, calls = StopFlag(), []

    def call() -> None:
        calls.append(1)
        if len(calls) == 4:
            stop.set()

    assert len(measure(call, Protocol(warmup=1, runs=1000), stop)) == 3
    assert measure(call, Protocol(warmup=1, runs=1000), stop) == []


def test_a_signal_stops_and_handlers_are_put_back() -> None:
    stop, before = StopFlag(), signal.getsignal(signal.SIGTERM)
    with stop.on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_set
    assert signal.getsignal(signal.SIGTERM) == before


def test_percentiles_are_durations_that_occurred() -> None:
    durations_ns = [int(1e6 * ms) for ms in range(1, 201)][::-1]
    found = summary(durations_ns)
    assert found == {
        "n": 200,
        "mean": 100.5,
        "min": 1.0,
        "p50": 100.0,
        "p95": 190.0,
        "p99": 198.0,
        "max": 200.0,
    }
    one = summary([2_000_000])
    assert one is not None
    assert {one[name] for name in ("min", "p50", "p99", "max")} == {2.0}
    assert summary([]) is None


def test_memory_is_the_process_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    before = memory.figures()
    assert before["resident"] is not None
    assert before["private_dirty"] is not None
    assert before["resident"] > before["private_dirty"] > 0
    block = np.ones(8_000_000)  # 64 MB
    after = memory.figures()
    assert after["private_dirty"] is not None
    assert after["private_dirty"] - before["private_dirty"] > 0.9 * block.nbytes
    monkeypatch.setattr(memory, "Path", lambda _name: Path("/nowhere"))
    hidden = memory.figures()
    assert hidden["private_dirty"] is hidden["unique"] is hidden["resident"] is None


def test_a_measuring_process_starts_with_the_standard_library_alone() -> None:
    code = "import sys, fer_agent.bench.child; print(*{n.split('.')[0] for n in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "cv2", "pydantic", "onnxruntime"} & set(done.stdout.split())


def test_thread_counts_go_from_one_to_all() -> None:
    assert thread_counts(1) == (1,)
    assert thread_counts(4) == (1, 2, 3, 4)
    assert thread_counts(6) == (1, 2, 4, 6)
    assert thread_counts(16) == (1, 2, 4, 8, 16)


def test_noise_fills_what_a_network_leaves_open_for_the_batch() -> None:
    path = Path("net.onnx")
    picture = make_input(path, np.dtype(np.uint8), ("N", 1, 48, 48))
    assert picture.shape == (1, 1, 48, 48)
    assert picture.dtype == np.uint8
    assert np.array_equal(picture, make_input(path, np.dtype(np.uint8), (None, 1, 48, 48)))
    assert make_input(path, np.dtype(np.int8), (2, 3)).dtype == np.int8
    with pytest.raises(ModelContractError, match="size is left open") as caught:
        make_input(path, np.dtype(np.float32), ("N", 3, "height", "width"))
    assert "--input-shape" in caught.value.remedy


def test_shapes_are_read_from_the_command_line() -> None:
    assert parse_shape("1,3,224,224") == parse_shape("1x3x224x224") == (1, 3, 224, 224)
    for text in ("", "1,0,2", "1,-3", "1,a", "1,,2"):
        with pytest.raises(UsageError, match="no input shape"):
            parse_shape(text)
