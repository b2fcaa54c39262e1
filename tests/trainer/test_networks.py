"""The student counted by part, the zoo, and weights from files."""

from __future__ import annotations

import collections
import pickle
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from fer_trainer import checkpoint
from fer_trainer.deploy import count_macs
from fer_trainer.errors import CheckpointError, RecipeError
from fer_trainer.networks.build import build_network
from fer_trainer.networks.student import Student
from fer_trainer.recipe import NetworkName, NetworkSection

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Run

    from fer_trainer.data.faceset import FaceSet


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_student_counts_stand_beside_the_papers() -> None:
    student = Student(7)
    assert parameters(student.backbone) == 926_720  # the paper: 0.93 M
    assert parameters(student.attention) == 166_608  # 2 * 576 * 576 / 4 = 165,888, and biases
    assert parameters(student) == 1_242_839  # the paper: 1.18 M or 1.24 M
    assert parameters(student) < 1_250_000


@pytest.mark.parametrize(
    ("strides", "side"), [((2, 2, 2, 2, 2), 2), ((1, 2, 2, 2, 2), 3), ((1, 2, 2, 2, 1), 6)]
)
def test_strides_set_the_last_map(strides: tuple[int, ...], side: int) -> None:
    student = Student(7, strides=strides).eval()
    with torch.no_grad():
        assert student.backbone(torch.zeros(1, 1, 48, 48)).shape == (1, 576, side, side)


def test_student_stays_within_the_papers_operations() -> None:
    assert count_macs(build_network(NetworkSection(strides=(1, 2, 2, 2, 2)), 7).eval()) < 45e6


def test_se_block_can_be_left_out() -> None:
    assert parameters(Student(7, reduction=0)) == 1_242_839 - 166_608


@pytest.mark.parametrize(
    "name", ["vgg13", "efficientnet-b0", "mobilenet-v2", "shufflenet-v2", "mobilenet-v3-small"]
)
def test_zoo_takes_gray_crops(name: NetworkName) -> None:
    network = build_network(NetworkSection(name=name), 8).eval()
    with torch.no_grad():
        assert network(torch.rand(2, 1, 48, 48)).shape == (2, 8)


def write_pickle(path: Path, tree: object) -> Path:
    path.write_bytes(pickle.dumps(tree, protocol=2))
    return path


def resnet50_arrays() -> dict[str, np.ndarray]:
    network = build_network(NetworkSection(name="resnet50"), 7)
    return collections.OrderedDict(
        (name, np.full(tensor.shape, 0.5, np.float32))
        for name, tensor in network.body.state_dict().items()
        if "num_batches" not in name
    )


def test_vggface2_weights_load_from_the_published_pickle(tmp_path: Path) -> None:
    arrays = resnet50_arrays()
    arrays["fc.weight"] = np.zeros((8631, 2048), np.float32)
    section = NetworkSection(name="resnet50", weights="vggface2")
    network = build_network(section, 7, write_pickle(tmp_path / "resnet50_ft_weight.pkl", arrays))
    assert float(network.body.layer1[0].conv1.weight.detach().min()) == 0.5
    assert network.body.layer2[0].conv1.stride == (2, 2)
    assert network.body.fc.weight.shape == (7, 2048)
    del arrays["conv1.weight"]
    with pytest.raises(CheckpointError, match=r"does not fit ResNet-50 at conv1\.weight"):
        build_network(section, 7, write_pickle(tmp_path / "cut.pkl", arrays))


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.mkdir, ("pickle-was-run",)


def test_pickled_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_pickle(tmp_path / "evil.pkl", {"conv1.weight": _Evil()})
    with pytest.raises(CheckpointError, match="which is no array"):
        build_network(NetworkSection(name="resnet50", weights="vggface2"), 7, path)
    assert not (tmp_path / "pickle-was-run").exists()


def test_weights_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no VGGFace2 weights for student"):
        build_network(NetworkSection(weights="vggface2"), 7)
    with pytest.raises(RecipeError, match="no ImageNet weights for the student"):
        build_network(NetworkSection(weights="imagenet"), 7)
    with pytest.raises(RecipeError, match="needs a file"):
        build_network(NetworkSection(weights="run"), 7)
    with pytest.raises(CheckpointError, match="there is no"):
        build_network(NetworkSection(weights="run"), 7, tmp_path / "gone.ckpt")


def test_another_runs_weights_start_a_run(run: Run, faces: FaceSet) -> None:
    classes = len(faces.labels)
    section = NetworkSection(weights="run", strides=(1, 2, 2, 2, 2))
    network = build_network(section, classes, run.folder)
    first = network.state_dict()["body.head.3.weight"]
    best = checkpoint.load(run.folder / "best.ckpt")
    assert torch.equal(first, best.ema["module.body.head.3.weight"])
    with pytest.raises(CheckpointError, match="does not fit"):
        build_network(section, classes + 1, run.folder)
    with pytest.raises(CheckpointError, match="holds a student"):
        build_network(NetworkSection(name="vgg13", weights="run"), classes, run.folder)
