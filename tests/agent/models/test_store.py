from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from manifests import manifest

from fer_agent.errors import ModelContractError, ModelFileError
from fer_agent.models.store import find_model, model_names

if TYPE_CHECKING:
    from pathlib import Path


def put(store: Path, content: bytes = b"network", **changes: Any) -> Path:
    folder = store / "tiny"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(content)
    (folder / "manifest.json").write_text(json.dumps(manifest(**changes)), encoding="utf-8")
    return folder


def test_finds_a_model_and_verifies_its_file(tmp_path: Path) -> None:
    folder = put(tmp_path)
    model = find_model("tiny", tmp_path)
    assert model.manifest.labels == ("happy", "sad")
    assert model.manifest.input.size == (48, 48)
    assert model.verified_file() == folder / "model.onnx"


def test_store_comes_before_the_shipped_models(tmp_path: Path) -> None:
    (shipped,) = [name for name in model_names() if name == "microexpnet-fer2013"] or [None]
    if shipped is None:
        pytest.skip("no model is shipped with this checkout")
    put(tmp_path).rename(tmp_path / shipped)
    assert find_model(shipped, tmp_path).folder == tmp_path / shipped


def test_unknown_model_is_an_error_that_names_those_there(tmp_path: Path) -> None:
    put(tmp_path)
    with pytest.raises(ModelFileError, match="no model named 'huge'") as caught:
        find_model("huge", tmp_path)
    assert "tiny" in caught.value.remedy


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"networ", "has 6 bytes"), (b"netwark", "has sha256")],
    ids=["truncated", "altered"],
)
def test_a_file_that_is_not_the_manifests_is_refused(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    put(tmp_path, content)
    with pytest.raises(ModelFileError, match=problem):
        find_model("tiny", tmp_path).verified_file()


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    (put(tmp_path) / "model.onnx").unlink()
    with pytest.raises(ModelFileError, match="cannot read"):
        find_model("tiny", tmp_path).verified_file()


def test_a_precision_that_is_not_there_is_refused(tmp_path: Path) -> None:
    put(tmp_path)
    with pytest.raises(ModelContractError, match="no int8 file, only fp32"):
        find_model("tiny", tmp_path).verified_file("int8")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"labels": ["happy", "cheerful"]}, r"manifest\.json: labels \['cheerful'\]"),
        ({"labels": ["happy", "happy"]}, "twice"),
        ({"colour": "rgb"}, "colour"),
        ({"input": {"shape": ["N", 3, 48, 48]}}, "input"),
        ({"files": [{"path": "../model.onnx"}]}, "files"),
        ({"schema_version": 2}, "manifest version 2"),
    ],
    ids=["foreign label", "double label", "unknown key", "input", "path", "newer"],
)
def test_a_manifest_that_breaks_the_contract_is_refused(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    put(tmp_path, **changes)
    with pytest.raises(ModelContractError, match=problem):
        find_model("tiny", tmp_path)


def test_a_manifest_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (put(tmp_path) / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelFileError, match="is not JSON"):
        find_model("tiny", tmp_path)
