"""Vector scaling: its fit, its refusals, and models that keep it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy.special import softmax

from fer_trainer import checkpoint
from fer_trainer.data.faceset import Split
from fer_trainer.deploy import network_of
from fer_trainer.errors import CheckpointError, DataError
from fer_trainer.evaluate import evaluate, open_subject
from fer_trainer.inference import predict
from fer_trainer.metrics import figures, fit_temperature, probabilities
from fer_trainer.release import release
from fer_trainer.scaling import Scaling, fit, scaled

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Run

    from fer_trainer.data.faceset import FaceSet

TRUE = Scaling(np.array([0.5, 2.0, 1.0], np.float32), np.array([0.6, -0.9, 0.3], np.float32))


def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels that follow the probabilities of `TRUE`."""
    generator = np.random.default_rng(6)
    logits = generator.normal(0.0, 2.0, (count, 3)).astype(np.float32)
    probs = softmax(TRUE.scale * logits + TRUE.offset, axis=1)
    truth = (generator.random((count, 1)) > probs.cumsum(axis=1)).sum(axis=1)
    return logits, truth.astype(np.int64)


def test_scales_and_offsets_are_found() -> None:
    logits, truth = drawn(40_000)
    found = fit(logits, truth)
    assert found.scale == pytest.approx(TRUE.scale, rel=0.05)
    assert found.offset == pytest.approx(TRUE.offset, abs=0.05)
    calibrated = found.scale * logits + found.offset
    assert fit_temperature(calibrated, truth) == pytest.approx(1.0, abs=0.01)


def test_probabilities_become_truer_than_under_one_temperature() -> None:
    logits, truth = drawn(8_000)
    half = len(logits) // 2
    found = fit(logits[:half], truth[:half])
    temperature = fit_temperature(logits[:half], truth[:half])
    labels, rest = ("a", "b", "c"), slice(half, None)
    one = figures(probabilities(logits[rest], temperature), truth[rest], labels)
    each = probabilities(found.scale * logits[rest] + found.offset, 1.0)
    assert figures(each, truth[rest], labels).ece < one.ece / 2.0


def test_last_layer_holds_the_scaling(run: Run, faces: FaceSet) -> None:
    state, valid = checkpoint.load(run.folder / "best.ckpt"), faces.only(Split.VALID)
    made = scaled(state, faces)
    before, after = (
        predict(network_of(one), valid.images, torch.device("cpu")) for one in (state, made)
    )
    found = fit(before.numpy(), valid.hard_labels)
    assert np.allclose(after, found.scale * before.numpy() + found.offset, atol=1e-4)
    changed = [name for name in state.ema if not torch.equal(state.ema[name], made.ema[name])]
    assert changed == ["module.body.head.3.weight", "module.body.head.3.bias"]
    with pytest.raises(CheckpointError, match="scaled already"):
        scaled(made, faces)


def test_class_without_a_validation_image_is_named(run: Run, faces: FaceSet) -> None:
    gone = (faces.split == Split.VALID) & (faces.hard_labels == 2)
    with pytest.raises(DataError, match=f"the class {faces.labels[2]} has no validation image"):
        scaled(checkpoint.load(run.folder / "best.ckpt"), faces.take(~gone))


def test_model_and_kept_checkpoint_of_a_scaled_network_agree(
    run: Run, faces: FaceSet, tmp_path: Path
) -> None:
    made = scaled(checkpoint.load(run.folder / "best.ckpt"), faces)
    release(made, faces, tmp_path / "tiny", version="1.0.0")
    assert "each class's logit was scaled and shifted" in (tmp_path / "tiny/card.md").read_text()
    checkpoint.save(made, tmp_path / "kept.ckpt")
    assert checkpoint.load(tmp_path / "kept.ckpt").scaled
    model, kept = (evaluate(open_subject(tmp_path / name), faces) for name in ("tiny", "kept.ckpt"))
    assert model.whole.confusion == kept.whole.confusion
