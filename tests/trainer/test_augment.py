"""Views: replayable, bounded, and the plain image when every switch is off."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from fer_trainer.augment import DRAWS, augment, draw_order, draw_view
from fer_trainer.losses import label_loss
from fer_trainer.mixing import Mixing, draw_mixing, mix
from fer_trainer.recipe import AugmentSection, LossSection

if TYPE_CHECKING:
    from fer_trainer.data.faceset import FaceSet

OFF = AugmentSection(
    flip=0, rotation_deg=0, shift=0, scale=0, shear_deg=0, brightness=0, contrast=0, erasing=0
)


def mixing_of(section: AugmentSection, *, batch: int) -> Mixing:
    drawn = draw_mixing(3, 1, steps=4, batch_size=16, size_px=48, section=section)
    return Mixing(*(table[batch] for table in drawn))


@pytest.fixture
def images(faces: FaceSet) -> torch.Tensor:
    return torch.tensor(faces.images[:16])


def test_draws_are_the_same_everywhere() -> None:
    # NumPy's Philox is specified: these numbers hold on every device and version.
    draws = draw_view(7, 3, 4)
    assert draws.dtype == np.float32
    assert draws.shape == (4, len(DRAWS))
    assert np.array_equal(draws, draw_view(7, 3, 4))
    assert np.array_equal(draws, draw_view(7, 3, 400)[:4])
    assert not np.array_equal(draws, draw_view(7, 4, 4))
    assert not np.array_equal(draws, draw_view(8, 3, 4))
    expected = np.random.Generator(np.random.Philox(key=[7, 3])).random((4, 24), dtype=np.float32)
    assert np.array_equal(draws, expected)


def test_torch_generators_are_not_used(images: torch.Tensor) -> None:
    before = torch.get_rng_state()
    draws = torch.from_numpy(draw_view(1, 0, len(images)))
    views = augment(images, draws, AugmentSection(erasing=1.0))
    mix(views, torch.ones(16, 2) / 2, mixing_of(AugmentSection(mixup=1.0), batch=0))
    assert torch.equal(before, torch.get_rng_state())


def test_everything_off_is_the_image(images: torch.Tensor) -> None:
    views = augment(images, torch.from_numpy(draw_view(1, 0, 16)), OFF)
    assert torch.allclose(views[:, 0], images / 255.0, atol=1e-5)


def test_flip_mirrors(images: torch.Tensor) -> None:
    views = augment(
        images, torch.from_numpy(draw_view(1, 0, 16)), OFF.model_copy(update={"flip": 1.0})
    )
    assert torch.allclose(views[:, 0], images.flip(2) / 255.0, atol=1e-5)


def test_a_view_does_not_depend_on_its_batch(images: torch.Tensor) -> None:
    draws = torch.from_numpy(draw_view(1, 0, 16))
    section = AugmentSection(erasing=0.5)
    whole = augment(images, draws, section)
    apart = augment(images[5:6], draws[5:6], section)
    assert torch.allclose(whole[5:6], apart, atol=1e-6)
    assert 0 <= float(whole.min()) <= float(whole.max()) <= 1


def test_erasing_covers_a_box(images: torch.Tensor) -> None:
    views = augment(
        images, torch.from_numpy(draw_view(1, 0, 16)), OFF.model_copy(update={"erasing": 1.0})
    )
    changed = (views[:, 0] - images / 255.0).abs() > 1e-4
    share = changed.float().mean(dim=(1, 2))
    assert float(share.min()) > 0.005
    assert float(share.max()) < 0.4


@pytest.mark.parametrize("switch", ["mixup", "cutmix"])
def test_mixing_keeps_targets_sums(images: torch.Tensor, switch: str) -> None:
    gray = images.unsqueeze(1).float() / 255
    targets = torch.eye(16)
    section = OFF.model_copy(update={switch: 1.0})
    mixed, wanted = mix(gray, targets, mixing_of(section, batch=2))
    again, _ = mix(gray, targets, mixing_of(section, batch=2))
    assert torch.equal(mixed, again)
    assert torch.allclose(wanted.sum(dim=1), torch.ones(16))
    assert not torch.equal(mixed, gray)
    if switch == "cutmix":
        share = wanted.diagonal()[wanted.diagonal() < 1]
        own = (mixed == gray).float().mean(dim=(1, 2, 3))[wanted.diagonal() < 1]
        assert torch.all(own >= share - 1e-6)


def test_coin_decides_between_mixup_and_cutmix() -> None:
    section = OFF.model_copy(update={"mixup": 0.4, "cutmix": 1.0})
    drawn = draw_mixing(1, 0, steps=200, batch_size=2, size_px=48, section=section)
    boxed = drawn.box[:, 2] > 0
    assert 0.35 < float(boxed.float().mean()) < 0.65
    assert torch.all(drawn.own[boxed] == 1.0)
    assert torch.equal(drawn.own[~boxed & (drawn.own < 1)], drawn.share[~boxed & (drawn.own < 1)])
    assert torch.all(drawn.box[:, :2] + drawn.box[:, 2:] <= 48)


def test_order_visits_everything_once_or_by_weight() -> None:
    even = draw_order(1, 0, np.ones(50, np.float32))
    assert sorted(even) == list(range(50))
    rare = np.array([1] * 90 + [9] * 10, np.float32)
    drawn = draw_order(1, 0, rare)
    assert 0.3 < np.mean(drawn >= 90) < 0.7


def test_losses_match_torch_and_soften_with_focus() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3]])
    truth = torch.tensor([0, 2])
    one_hot = torch.eye(3)[truth]
    ours = label_loss(logits, one_hot, LossSection(label_smoothing=0.1))
    theirs = torch.nn.functional.cross_entropy(logits, truth, label_smoothing=0.1)
    assert torch.allclose(ours, theirs)
    plain = LossSection(name="focal", label_smoothing=0.0, focal_gamma=0.0)
    assert torch.allclose(
        label_loss(logits, one_hot, plain), torch.nn.functional.cross_entropy(logits, truth)
    )
    focal = label_loss(logits, one_hot, LossSection(name="focal", label_smoothing=0.0))
    assert focal < theirs
    hinge = LossSection(name="squared-hinge", label_smoothing=0.0)
    far = torch.tensor([[5.0, -5.0, -5.0], [-5.0, -5.0, 5.0]])
    assert float(label_loss(far, one_hot, hinge)) == 0.0
    assert float(label_loss(-far, one_hot, hinge)) > 0.0
