"""The student counted by part, the zoo, and weights from files."""

from __future__ import annotations

import collections
import pickle
import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from fer_trainer import checkpoint
from fer_trainer.deploy import count_macs
from fer_trainer.errors import CheckpointError, RecipeError
from fer_trainer.networks.build import build_network
from fer_trainer.networks.mobileface import MobileFace
from fer_trainer.networks.student import Student
from fer_trainer.recipe import NetworkName, NetworkSection, load_recipe

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


def test_multiplier_narrows_the_student_to_multiples_of_eight() -> None:
    narrow = Student(7, strides=(1, 2, 2, 2, 2), multiplier=0.5).eval()
    channels = {m.num_features for m in narrow.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert all(count % 8 == 0 for count in channels)
    with torch.no_grad():
        assert narrow.features(torch.zeros(1, 1, 48, 48)).shape == (1, 6 * 48)
    section = NetworkSection(strides=(1, 2, 2, 2, 2), multiplier=0.5)
    assert count_macs(build_network(section, 7).eval()) < 4e6
    assert parameters(Student(7, multiplier=1.0)) == 1_242_839


def test_se_block_can_be_left_out() -> None:
    assert parameters(Student(7, reduction=0)) == 1_242_839 - 166_608


@pytest.mark.parametrize(
    "name", ["vgg13", "efficientnet-b0", "mobilenet-v2", "shufflenet-v2", "mobilenet-v3-small"]
)
def test_zoo_takes_gray_crops(name: NetworkName) -> None:
    with torch.device("meta"), torch.no_grad():  # VGG13 has half a gigabyte of weights
        network = build_network(NetworkSection(name=name), 8).eval()
        assert network(torch.rand(2, 1, 48, 48)).shape == (2, 8)


@pytest.mark.parametrize(
    ("name", "counted", "macs"), [("vgg-48", 9_412_935, 473e6), ("resnet-48", 11_171_271, 1_247e6)]
)
def test_networks_made_for_48_pixels_have_a_width(
    name: NetworkName, counted: int, macs: float
) -> None:
    wide = build_network(NetworkSection(name=name), 7).eval()
    narrow = build_network(NetworkSection(name=name, width=16), 7).eval()
    assert parameters(wide) == counted
    assert count_macs(wide) == pytest.approx(macs, rel=0.01)
    assert parameters(narrow) < counted / 14
    with torch.no_grad():
        maps = narrow.body.features[:-2](torch.zeros(2, 1, 48, 48))
        assert maps.shape[-1] == 6
        assert narrow(torch.rand(2, 1, 48, 48)).shape == (2, 7)
    with pytest.raises(RecipeError, match=f"no ImageNet weights for {name}"):
        build_network(NetworkSection(name=name, weights="imagenet"), 7)


def test_crops_can_be_enlarged_to_a_networks_own_size() -> None:
    section = NetworkSection(name="mobilenet-v3-small")
    small = build_network(section, 7).eval()
    large = build_network(section.model_copy(update={"input_px": 224}), 7).eval()
    assert parameters(large) == parameters(small)
    assert count_macs(large) == pytest.approx(56e6, rel=0.02)  # as published for 224 pixels
    with torch.no_grad():
        assert large(torch.rand(2, 1, 48, 48)).shape == (2, 7)


def test_student_of_the_recipe_counts_what_the_paper_counts() -> None:
    network = build_network(load_recipe("paper").network, 7)
    assert parameters(network) == 1_242_839


def write_pickle(path: Path, tree: object) -> Path:
    with path.open("wb") as file:
        pickle.dump(tree, file, protocol=2)
    return path


def resnet50_arrays() -> dict[str, np.ndarray]:
    with torch.device("meta"):
        network = build_network(NetworkSection(name="resnet50"), 7)
    return collections.OrderedDict(
        (name, np.full(tensor.shape, 0.5, np.float32))
        for name, tensor in network.body.state_dict().items()
        if "num_batches" not in name
    )


def test_vggface2_weights_load_from_the_published_pickle(tmp_path: Path) -> None:
    arrays = resnet50_arrays()
    arrays["fc.weight"] = np.zeros((9, 2048), np.float32)  # published: 8631 people
    section = NetworkSection(name="resnet50", weights="vggface2")
    network = build_network(section, 7, write_pickle(tmp_path / "resnet50_ft_weight.pkl", arrays))
    assert float(network.body.layer1[0].conv1.weight.detach().min()) == 0.5
    assert network.body.layer2[0].conv1.stride == (2, 2)
    assert network.body.fc.weight.shape == (7, 2048)
    del arrays["conv1.weight"], network
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


def write_params(path: Path, network: MobileFace) -> Path:
    """Write a network as MXNet would: `NDArray::Save`, list magic 0x112, array magic 0xF993FAC9."""
    arrays: dict[str, np.ndarray] = {}

    def conv(name: str, layer: torch.nn.Conv2d) -> None:
        arrays[f"arg:{name}_weight"] = layer.weight.detach().numpy()
        if layer.bias is not None:
            arrays[f"arg:{name}_bias"] = layer.bias.detach().numpy()

    def norm(name: str, layer: torch.nn.BatchNorm2d) -> None:
        arrays[f"arg:{name}_gamma"] = layer.weight.detach().numpy()
        arrays[f"arg:{name}_beta"] = layer.bias.detach().numpy()
        assert layer.running_mean is not None
        assert layer.running_var is not None
        arrays[f"aux:{name}_moving_mean"] = layer.running_mean.numpy()
        arrays[f"aux:{name}_moving_var"] = layer.running_var.numpy()

    conv("conv1", network.stem)
    norm("bn1", network.stem_norm)
    layers = [m for m in network.blocks.modules() if isinstance(m, torch.nn.Conv2d)]
    for number, layer in enumerate(layers):
        conv(f"convolution{number}", layer)
    norms = [m for m in network.blocks.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for number, each in enumerate(norms):
        norm(f"batchnorm{number}", each)
    with path.open("wb") as file:
        file.write(struct.pack("<QQQ", 0x112, 0, len(arrays)))
        for array in arrays.values():
            file.write(struct.pack("<IiI", 0xF993FAC9, 0, array.ndim))
            file.write(struct.pack(f"<{array.ndim}q", *array.shape))
            file.write(struct.pack("<iii", 1, 0, 0) + array.astype("<f4").tobytes())
        file.write(struct.pack("<Q", len(arrays)))
        for name in arrays:
            file.write(struct.pack("<Q", len(name)) + name.encode())
    return path


def test_mobileface_weights_load_from_the_published_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    published = MobileFace(7, dropout=0.0).eval()
    for module in published.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_var is not None
            module.running_var.uniform_(0.5, 2.0)
    path = write_params(tmp_path / "v2.params", published)
    section = NetworkSection(name="mobileface", weights="mobileface")

    network = build_network(section, 7, path).eval()
    network.body.head = published.head
    faces = torch.rand(2, 1, 48, 48)
    with torch.no_grad():
        assert torch.equal(network(faces), published((faces - 0.5) / (128 / 255)))

    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="is not MobileFace V2's weights"):
        build_network(section, 7, path)


def test_weights_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no vggface2 weights for student"):
        build_network(NetworkSection(weights="vggface2"), 7)
    with pytest.raises(RecipeError, match="no ImageNet weights for student"):
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
        build_network(section.model_copy(update={"hidden": 128}), classes, run.folder)
    with pytest.raises(CheckpointError, match="holds a student"):
        build_network(NetworkSection(name="mobilenet-v2", weights="run"), classes, run.folder)


def test_a_run_of_other_classes_gives_all_but_its_last_layer(run: Run, faces: FaceSet) -> None:
    section = NetworkSection(weights="run", strides=(1, 2, 2, 2, 2))
    network = build_network(section, len(faces.labels) + 1, run.folder).state_dict()
    best = checkpoint.load(run.folder / "best.ckpt").ema
    assert len(network["body.head.3.weight"]) == len(faces.labels) + 1
    for key in ("body.head.0.weight", "body.backbone.0.0.weight"):
        assert torch.equal(network[key], best[f"module.{key}"])
