from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fer_agent.errors import ModelContractError, ModelFileError
from fer_agent.inference import golden, golden_pictures
from fer_agent.inference.golden import Golden, Tolerance
from fer_agent.inference.onnx import OnnxSession
from fer_agent.models.store import find_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fer_agent.models.store import StoredModel


@pytest.fixture(scope="module")
def shipped() -> StoredModel:
    return find_model("microexpnet-fer2013")


@pytest.fixture(scope="module")
def answers(shipped: StoredModel) -> Golden:
    path = shipped.golden_file()
    assert path is not None
    return golden.load(path)


class Altered:
    """The shipped model's session whose outputs are changed on the way."""

    def __init__(self, session: OnnxSession, change: Callable[[Any], Any]) -> None:
        self.input_shape = session.input_shape
        self._session = session
        self._change = change

    def run(self, tensor: Any) -> dict[str, Any]:
        return {name: self._change(array) for name, array in self._session.run(tensor).items()}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("threads", [1, 2])
def test_each_shipped_file_agrees_with_the_golden_outputs(
    shipped: StoredModel, answers: Golden, precision: str, threads: int
) -> None:
    session = OnnxSession(shipped.verified_file(precision), threads=threads)
    agreement = golden.check(session, answers, golden.TOLERANCES[precision])
    assert agreement.inputs == 24


def test_shipped_golden_inputs_are_the_packages_own_pictures(answers: Golden) -> None:
    assert np.array_equal(answers.input, golden_pictures.gray_crops((48, 48)))


@pytest.mark.parametrize(
    "change",
    [
        lambda logits: logits + 0.01,
        lambda logits: logits[:, ::-1],
        lambda logits: logits * np.nan,
        np.zeros_like,
    ],
    ids=["a little off", "labels in another order", "not a number", "nothing"],
)
def test_a_session_that_answers_otherwise_is_refused(
    shipped: StoredModel, answers: Golden, change: Callable[[Any], Any]
) -> None:
    session = Altered(OnnxSession(shipped.verified_file()), change)
    with pytest.raises(golden.DisagreementError, match="golden inputs are off by") as caught:
        golden.check(session, answers, golden.TOLERANCES["fp32"])
    assert caught.value.agreement.largest_difference >= 0.0099
    assert caught.value.remedy


def test_other_labels_alone_are_refused(shipped: StoredModel, answers: Golden) -> None:
    session = Altered(OnnxSession(shipped.verified_file()), lambda logits: logits[:, ::-1])
    with pytest.raises(golden.DisagreementError) as caught:
        golden.check(session, answers, Tolerance(10.0, label_disagreements=0.125))
    assert caught.value.agreement.label_disagreements > 3


def test_weights_of_another_training_are_told_from_int8(
    shipped: StoredModel, answers: Golden, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx comes with the trainer extra")
    graph = onnx.load(str(shipped.verified_file()))
    largest = max(graph.graph.initializer, key=lambda one: len(one.raw_data))
    weights = onnx.numpy_helper.to_array(largest)
    largest.CopyFrom(onnx.numpy_helper.from_array(np.roll(weights, 1, axis=0), largest.name))
    path = tmp_path / "rolled.onnx"
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(golden.DisagreementError):
        golden.check(OnnxSession(path), answers, golden.TOLERANCES["int8"])


@pytest.mark.parametrize(
    "change",
    [lambda logits: logits[:, :-1], lambda logits: logits[:-1]],
    ids=["a label less", "a row less"],
)
def test_outputs_of_another_shape_break_the_contract(
    shipped: StoredModel, answers: Golden, change: Callable[[Any], Any]
) -> None:
    session = Altered(OnnxSession(shipped.verified_file()), change)
    with pytest.raises(ModelContractError, match=r"expected \{'logits': \(24, 7\)\}"):
        golden.check(session, answers, golden.TOLERANCES["int8"])


def test_encoding_is_the_same_each_time_and_reads_back(answers: Golden, tmp_path: Path) -> None:
    content = golden.encode(answers)
    (tmp_path / "golden.npz").write_bytes(content)
    again = golden.load(tmp_path / "golden.npz")
    assert golden.encode(again) == content
    assert np.array_equal(again.input, answers.input)
    assert np.array_equal(again.outputs["logits"], answers.outputs["logits"])


def npz(path: Path, **arrays: Any) -> None:
    np.savez(path, **arrays)


def plain_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(8))


@pytest.mark.parametrize(
    ("write", "why"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.write_bytes(b""), "has no golden inputs"),
        (lambda path: path.write_bytes(b"PK\x03\x04 and then nothing"), "has no golden inputs"),
        (lambda path: npz(path, other=np.zeros(8)), "no array named 'input'"),
        (lambda path: npz(path, input=np.zeros(8)), "8 inputs and 0 outputs"),
        (lambda path: npz(path, input=np.zeros(3), **{"output:a": np.zeros(3)}), "3 inputs"),
        (lambda path: npz(path, input=np.array([{}] * 8, object)), "has no golden inputs"),
        (plain_array, "has no golden inputs"),
    ],
    ids=["missing", "empty", "cut off", "no input", "no output", "few", "pickle", "no archive"],
)
def test_a_file_without_golden_inputs_is_named(
    tmp_path: Path, write: Callable[[Path], None], why: str
) -> None:
    path = tmp_path / "golden.npz"
    write(path)
    with pytest.raises(ModelFileError, match=why) as caught:
        golden.load(path)
    assert str(path) in str(caught.value)


def test_an_altered_golden_file_is_refused(shipped: StoredModel, tmp_path: Path) -> None:
    folder = tmp_path / shipped.manifest.name
    folder.mkdir()
    (folder / "golden.npz").write_bytes(b"something else")
    with pytest.raises(ModelFileError, match="14 bytes"):
        shipped.model_copy(update={"folder": folder}).golden_file()


def test_a_model_without_golden_inputs_has_none(shipped: StoredModel) -> None:
    manifest = shipped.manifest.model_copy(update={"golden": None})
    assert shipped.model_copy(update={"manifest": manifest}).golden_file() is None
