from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fer_agent.errors import InferenceError, ModelContractError, ModelFileError
from fer_agent.inference.onnx import OnnxSession

if TYPE_CHECKING:
    from collections.abc import Sequence

TASKS = Path("/proc/self/task")
onnx = pytest.importorskip("onnx", reason="onnx comes with the trainer extra")


def write_sum(path: Path, inputs: Sequence[str] = ("picture",)) -> Path:
    """Write a network that gives the sum over each row, and twice that sum."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("ReduceSum", [inputs[0], "axes"], ["total"], keepdims=0),
        helper.make_node("Add", ["total", "total"], ["double"]),
    ]
    graph = helper.make_graph(
        nodes,
        "sum",
        [helper.make_tensor_value_info(name, kind, ["n", 3]) for name in inputs],
        [helper.make_tensor_value_info(name, kind, ["n"]) for name in ("double", "total")],
        [helper.make_tensor("axes", onnx.TensorProto.INT64, [1], [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return write_sum(tmp_path / "sum.onnx")


def test_outputs_come_by_their_names_in_the_file(network: Path) -> None:
    session = OnnxSession(network)
    outputs = session.run(np.array([[1, 2, 3], [4, 5, 6]], np.float32))
    assert session.input_shape == ("n", 3)
    assert {name: array.tolist() for name, array in outputs.items()} == {
        "double": [12.0, 30.0],
        "total": [6.0, 15.0],
    }


def test_every_run_gives_arrays_of_its_own(network: Path) -> None:
    session = OnnxSession(network)
    first = session.run(np.ones((1, 3), np.float32))
    session.run(np.zeros((1, 3), np.float32))
    assert first["total"].tolist() == [3.0]


def test_int8_products_are_exact_on_every_processor(tmp_path: Path) -> None:
    """Sums of two products fill 16 bits and more; an instruction of older x86-64 saturates them."""
    helper, kind = onnx.helper, onnx.TensorProto
    weights = np.full((64, 8), 127, np.int8)
    one = np.float32(1.0)
    constants = {
        "scale": one,
        "zero_u8": np.uint8(0),
        "zero_s8": np.int8(0),
        "weights": weights,
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["picture", "scale", "zero_u8"], ["quantised"]),
        helper.make_node("DequantizeLinear", ["quantised", "scale", "zero_u8"], ["a"]),
        helper.make_node("DequantizeLinear", ["weights", "scale", "zero_s8"], ["b"]),
        helper.make_node("MatMul", ["a", "b"], ["sums"]),
    ]
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("picture", kind.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("sums", kind.FLOAT, ["n", 8])],
        [onnx.numpy_helper.from_array(np.asarray(each), name) for name, each in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(tmp_path / "products.onnx"))

    picture = np.full((2, 64), 255, np.float32)
    sums = OnnxSession(tmp_path / "products.onnx").run(picture)["sums"]

    assert sums.tolist() == (picture @ weights.astype(np.float32)).tolist()


@pytest.mark.parametrize("content", [b"", b"garbage" * 100, b"<html>not here</html>"])
def test_a_file_that_is_no_network_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"broken\.onnx") as caught:
        OnnxSession(path)
    assert caught.value.remedy


def test_a_truncated_network_is_refused(shared: Path, tmp_path: Path) -> None:
    whole = (shared / "models" / "yunet_s_dynamic.onnx").read_bytes()
    path = tmp_path / "short.onnx"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelFileError, match=r"short\.onnx"):
        OnnxSession(path)


@pytest.mark.parametrize("name", ["missing.onnx", "."])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelFileError, match="no model file"):
        OnnxSession(tmp_path / name)


def test_a_network_with_two_inputs_breaks_the_contract(tmp_path: Path) -> None:
    with pytest.raises(ModelContractError, match="2 inputs"):
        OnnxSession(write_sum(tmp_path / "two.onnx", ("picture", "mask")))


@pytest.mark.parametrize(
    "tensor",
    [np.zeros((1, 3), np.float64), np.zeros((1, 4), np.float32), np.zeros(3, np.float32)],
    ids=["dtype", "width", "rank"],
)
def test_a_refused_input_is_an_inference_error(
    network: Path, tensor: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InferenceError, match=r"sum\.onnx failed on float"):
        OnnxSession(network).run(tensor)
    assert capfd.readouterr() == ("", "")  # the runtime itself says nothing beside it


def test_a_silent_fallback_to_another_provider_is_an_error(
    network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    monkeypatch.setattr(
        onnxruntime.InferenceSession, "get_providers", lambda _: ["OtherExecutionProvider"]
    )
    with pytest.raises(InferenceError, match="OtherExecutionProvider"):
        OnnxSession(network)


@pytest.mark.skipif(not TASKS.is_dir(), reason="counts threads in /proc")
@pytest.mark.parametrize("threads", [1, 3])
def test_only_the_threads_asked_for_are_started(network: Path, threads: int) -> None:
    before = len(list(TASKS.iterdir()))
    session = OnnxSession(network, threads=threads)
    session.run(np.ones((1, 3), np.float32))
    assert len(list(TASKS.iterdir())) - before == threads - 1


def test_the_module_alone_does_not_load_the_runtime() -> None:
    code = "import sys, fer_agent.inference.onnx; sys.exit('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
