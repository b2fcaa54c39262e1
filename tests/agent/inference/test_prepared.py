from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fer_agent.errors import ModelFileError
from fer_agent.inference import noise, prepared
from fer_agent.inference.onnx import WEIGHTS_NAME, OnnxSession
from fer_agent.models.store import find_model
from fer_agent.system import board

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODEL = find_model("microexpnet-ferplus")
CROPS = np.random.default_rng(1).integers(0, 256, (3, 1, 48, 48), np.uint8)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def open_prepared(store: Path, precision: str = "fp32") -> OnnxSession:
    file = MODEL.manifest.file(precision)
    return prepared.open_session(MODEL.folder / file.path, file.sha256, store, threads=1)


def logits(session: OnnxSession) -> NDArray[np.generic]:
    (array,) = session.run(CROPS).values()
    return array


def folders(store: Path) -> list[Path]:
    return sorted(path.parent for path in store.glob(".state/prepared/*/hashes.json"))


def maps_weights_of(folder: Path) -> bool:
    return str(folder / WEIGHTS_NAME) in Path("/proc/self/maps").read_text(encoding="utf-8")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_prepared_network_answers_as_the_file_itself_does(store: Path, precision: str) -> None:
    plain = logits(OnnxSession(MODEL.verified_file(precision)))
    first, second = open_prepared(store, precision), open_prepared(store, precision)
    assert len(folders(store)) == 1
    np.testing.assert_allclose(logits(first), plain, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(logits(first), logits(second))


def test_weights_are_mapped_and_not_read(store: Path) -> None:
    session = open_prepared(store)
    (folder,) = folders(store)
    assert maps_weights_of(folder)
    weights = MODEL.manifest.parameters * 4
    assert (folder / WEIGHTS_NAME).stat().st_size > 0.9 * weights
    assert (folder / "model.onnx").stat().st_size < 0.1 * weights
    assert session.run(CROPS)


def test_second_start_takes_what_the_first_one_wrote(store: Path) -> None:
    open_prepared(store)
    (folder,) = folders(store)
    written_ns = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    open_prepared(store)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == written_ns


@pytest.mark.parametrize("damaged", [WEIGHTS_NAME, "model.onnx", "hashes.json"])
def test_damaged_preparation_is_made_anew(store: Path, damaged: str) -> None:
    wanted = logits(open_prepared(store))
    (folder,) = folders(store)
    content = bytearray((folder / damaged).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (folder / damaged).unlink()  # a file that is mapped by now must not change
    (folder / damaged).write_bytes(content)
    np.testing.assert_array_equal(logits(open_prepared(store)), wanted)
    assert bytes(content) != (folder / damaged).read_bytes()


def test_another_processor_is_prepared_for_by_itself(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_prepared(store)
    monkeypatch.setattr(board, "instruction_sets", lambda: "another")
    open_prepared(store)
    assert len(folders(store)) == 2


def test_what_a_power_cut_left_is_swept_away(store: Path) -> None:
    partial = store / ".state" / "prepared" / ".part"
    partial.mkdir(parents=True)
    (partial / WEIGHTS_NAME).write_bytes(b"half")
    open_prepared(store)
    assert not partial.exists()
    assert len(folders(store)) == 1


def test_only_the_newest_few_stay(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "KEPT", 2)
    for number in range(3):
        monkeypatch.setattr(board, "instruction_sets", lambda number=number: str(number))
        open_prepared(store)
    newest = folders(store)
    assert len(newest) == 2
    open_prepared(store)
    assert folders(store) == newest


def test_store_that_cannot_be_written_gets_the_file_itself(store: Path) -> None:
    store.write_text("no folder")
    np.testing.assert_allclose(
        logits(open_prepared(store)), logits(OnnxSession(MODEL.verified_file())), rtol=1e-4
    )


def test_preparation_that_answers_otherwise_is_not_kept(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_input = noise.make_input

    def spoil(*arguments: Any) -> NDArray[np.generic]:
        path = store / ".state" / "prepared" / ".part" / WEIGHTS_NAME
        path.write_bytes(bytes(path.stat().st_size))
        return make_input(*arguments)

    monkeypatch.setattr(noise, "make_input", spoil)
    session = open_prepared(store)
    assert folders(store) == []
    np.testing.assert_allclose(
        logits(session), logits(OnnxSession(MODEL.verified_file())), rtol=1e-4
    )


def test_broken_file_is_refused_by_its_own_name(store: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    with pytest.raises(ModelFileError, match=r"broken\.onnx"):
        prepared.open_session(broken, "0" * 64, store, threads=1)
    assert folders(store) == []


def test_network_without_large_weights_has_one_file(store: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx comes with the trainer extra")
    info = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Add", ["x", "x"], ["y"])
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [node], "twice", [info("x", kind, ["n", 3])], [info("y", kind, ["n", 3])]
    )
    opset = onnx.helper.make_opsetid("", 13)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    path = tmp_path / "twice.onnx"
    path.write_bytes(model.SerializeToString())
    for _ in range(2):
        session = prepared.open_session(path, "1" * 64, store, threads=1)
        assert session.run(np.ones((1, 3), np.float32))["y"].tolist() == [[2.0, 2.0, 2.0]]
    (folder,) = folders(store)
    assert set(json.loads((folder / "hashes.json").read_text(encoding="ascii"))) == {"model.onnx"}


def test_session_outlives_its_files(store: Path) -> None:
    session = open_prepared(store)
    before = logits(session)
    shutil.rmtree(store)
    np.testing.assert_array_equal(logits(session), before)
