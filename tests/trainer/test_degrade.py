"""A camera's faults: off by default, replayable, bounded, and like the real thing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
import torch

from fer_trainer.augment import DRAWS, augment, draw_view
from fer_trainer.degrade import degrade
from fer_trainer.recipe import AugmentSection

if TYPE_CHECKING:
    from collections.abc import Callable

PORTRAIT = Path(__file__).parents[2] / "agent" / "fer_agent" / "assets" / "eileen-collins.webp"
PLAIN = AugmentSection(
    flip=0, rotation_deg=0, shift=0, scale=0, shear_deg=0, brightness=0, contrast=0, erasing=0
)
FAULTS = ("light", "blur", "noise", "resample", "jpeg")


@pytest.fixture
def face() -> torch.Tensor:
    """A real picture, float32 (16, 1, 48, 48) in [0, 1]."""
    gray = cv2.resize(
        cv2.imread(str(PORTRAIT), cv2.IMREAD_GRAYSCALE), (48, 48), interpolation=cv2.INTER_AREA
    )
    return (torch.from_numpy(gray).float() / 255.0).expand(16, 1, 48, 48).contiguous()


def draws(**fixed: float) -> Callable[[str], torch.Tensor]:
    table = torch.from_numpy(draw_view(1, 0, 16))

    def column(name: str) -> torch.Tensor:
        drawn = table[:, DRAWS.index(name), None, None, None]
        return torch.full_like(drawn, fixed[name]) if name in fixed else drawn

    return column


def only(fault: str, share: float = 1.0) -> AugmentSection:
    return PLAIN.model_copy(update={fault: share})


def test_all_faults_are_off_by_default(face: torch.Tensor) -> None:
    assert torch.equal(degrade(face, draws(), AugmentSection()), face)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_changes_the_picture_and_keeps_its_range(face: torch.Tensor, fault: str) -> None:
    seen = degrade(face, draws(), only(fault))
    assert seen.shape == face.shape
    assert seen.dtype == torch.float32
    assert float(seen.min()) >= 0.0
    assert float(seen.max()) <= 1.0
    change = (seen - face).abs().mean(dim=(1, 2, 3))  # (16,)
    assert float(change.max()) > 0.005
    assert len(change.unique()) > 1, "each image draws its own strength"
    assert torch.equal(seen, degrade(face, draws(), only(fault)))


@pytest.mark.parametrize("fault", FAULTS)
def test_the_share_says_how_many_images_have_the_fault(face: torch.Tensor, fault: str) -> None:
    column = draws()
    seen = degrade(face, column, only(fault, 0.5))
    touched = (seen != face).flatten(1).any(dim=1)
    assert torch.equal(touched, column(fault).flatten() < 0.5)


def test_light_only_ever_takes_away(face: torch.Tensor) -> None:
    assert bool((degrade(face, draws(), only("light")) <= face + 1e-6).all())


def test_noise_has_the_drawn_deviation() -> None:
    gray = torch.full((16, 1, 48, 48), 0.5)
    seen = degrade(gray, draws(noise_level=1.0), only("noise"))
    assert float((seen - 0.5).std()) == pytest.approx(0.08, rel=0.05)


@pytest.mark.parametrize(("draw", "side"), [(0.0, 20), (0.99, 36)])
def test_few_pixels_are_those_of_a_small_face(face: torch.Tensor, draw: float, side: int) -> None:
    seen = degrade(face, draws(resample_side=draw), only("resample"))[0, 0].numpy()
    small = cv2.resize(face[0, 0].numpy(), (side, side), interpolation=cv2.INTER_AREA)
    again = cv2.resize(small, (48, 48), interpolation=cv2.INTER_LINEAR)
    assert np.abs(seen - again).mean() < 0.02


@pytest.mark.parametrize("quality", [30, 60, 85])
def test_jpeg_is_near_what_an_encoder_does(face: torch.Tensor, quality: int) -> None:
    pixels = (face[0, 0].numpy() * 255).round().astype(np.uint8)
    _, file = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    real = cv2.imdecode(file, cv2.IMREAD_GRAYSCALE).astype(np.float32)
    column = draws(jpeg_quality=(quality - 20.0) / 70.0)
    ours = degrade(face, column, only("jpeg"))[0, 0].numpy() * 255
    lost = np.abs(real - pixels).mean()
    assert np.abs(ours - real).mean() < 0.3 * lost


def test_views_with_faults_do_not_depend_on_the_batch() -> None:
    images = torch.randint(0, 256, (16, 48, 48), dtype=torch.uint8)
    table = torch.from_numpy(draw_view(3, 1, 16))
    section = AugmentSection(light=0.5, blur=0.5, noise=0.5, resample=0.5, jpeg=0.5)
    together = augment(images, table, section)
    apart = torch.cat([augment(images[i : i + 1], table[i : i + 1], section) for i in range(16)])
    assert torch.allclose(together, apart, atol=1e-5)
