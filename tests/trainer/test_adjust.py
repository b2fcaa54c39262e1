"""Logit adjustment: what it raises, what chooses it, and that a model keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from fer_trainer import checkpoint
from fer_trainer.adjust import GIVEN_UP, TAUS, adjusted, choose_tau
from fer_trainer.data.faceset import Split
from fer_trainer.deploy import network_of
from fer_trainer.errors import CheckpointError
from fer_trainer.evaluate import evaluate, open_subject
from fer_trainer.inference import predict
from fer_trainer.metrics import figures, fit_temperature, probabilities
from fer_trainer.release import release

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Run

    from fer_trainer.data.faceset import FaceSet

RARE = ("often", "seldom")


def shy(count: int, *, lead: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a network that says `often` by a lead too much; three in ten are seldom."""
    generator = np.random.default_rng(4)
    truth = (generator.random(count) < 0.3).astype(np.int64)
    margin = np.where(truth == 1, 2.0, -2.0) + generator.normal(0.0, 1.0, count) - lead
    return np.stack([np.zeros(count), margin], axis=1).astype(np.float32), truth


def test_classes_that_are_said_too_seldom_are_raised() -> None:
    logits, truth = shy(4_000, lead=1.5)
    rarity = -np.log(np.array([0.9, 0.1], np.float32))
    tau = choose_tau(logits, rarity, truth, RARE)
    assert 0.4 < tau < 1.0
    before, after = (
        figures(probabilities(logits + np.float32(t) * rarity, 1.0), truth, RARE)
        for t in (0.0, tau)
    )
    assert after.macro_f1 > before.macro_f1 + 0.02
    assert after.accuracy > before.accuracy


def test_network_that_says_them_often_enough_stays_as_it_is() -> None:
    logits, truth = shy(4_000, lead=-2.0)
    assert choose_tau(logits, -np.log(np.array([0.9, 0.1], np.float32)), truth, RARE) == 0.0


def test_rare_classes_cost_little_accuracy() -> None:
    generator = np.random.default_rng(1)
    truth = generator.choice(3, 3_000, p=[0.6, 0.35, 0.05])
    logits = (1.2 * np.eye(3)[truth] + generator.normal(0, 0.8, (3_000, 3))).astype(np.float32)
    logits += np.log(np.array([0.6, 0.35, 0.05], np.float32))
    rarity = -np.log(np.array([0.6, 0.35, 0.05], np.float32))
    labels = ("a", "b", "c")
    accuracy = {
        tau: figures(probabilities(logits + np.float32(tau) * rarity, 1.0), truth, labels).accuracy
        for tau in TAUS
    }
    chosen = choose_tau(logits, rarity, truth, labels)
    assert accuracy[chosen] >= max(accuracy.values()) - GIVEN_UP


def uneven(faces: FaceSet) -> FaceSet:
    """The first class has two training images, the others ten."""
    first = np.flatnonzero((faces.split == Split.TRAIN) & (faces.hard_labels == 0))
    kept = np.ones(len(faces), dtype=bool)
    kept[first[2:]] = False
    return faces.take(kept)


def test_biases_are_raised_by_the_rarity_of_their_class(
    run: Run, faces: FaceSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer_trainer.adjust.choose_tau", lambda *_: 0.5)
    state, some = checkpoint.load(run.folder / "best.ckpt"), uneven(faces)
    made = adjusted(state, some)
    assert made.tau == 0.5
    valid = some.only(Split.VALID)
    before, after = (
        predict(network_of(one), valid.images, torch.device("cpu")) for one in (state, made)
    )
    temperature = fit_temperature(before.numpy(), valid.hard_labels)
    shares = torch.tensor([2.0] + [10.0] * 6) / 62.0
    expected = before - 0.5 * temperature * shares.log()
    assert torch.allclose(after, expected, atol=1e-4)
    changed = [name for name in state.ema if not torch.equal(state.ema[name], made.ema[name])]
    assert changed == ["module.body.head.3.bias"]
    with pytest.raises(CheckpointError, match=r"adjusted already, by 0\.5"):
        adjusted(made, some)


def test_model_and_kept_checkpoint_of_an_adjusted_network_agree(
    run: Run, faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer_trainer.adjust.choose_tau", lambda *_: 0.25)
    made = adjusted(checkpoint.load(run.folder / "best.ckpt"), uneven(faces))
    done = release(made, faces, tmp_path / "tiny", version="1.0.0")
    assert "raised by 0.25 of the logarithm" in (tmp_path / "tiny" / "card.md").read_text()
    checkpoint.save(made, tmp_path / "kept.ckpt")
    assert checkpoint.load(tmp_path / "kept.ckpt").tau == 0.25
    model, kept = (evaluate(open_subject(tmp_path / name), faces) for name in ("tiny", "kept.ckpt"))
    assert model.whole.confusion == kept.whole.confusion
    assert done.manifest.metrics[0].accuracy == pytest.approx(kept.whole.accuracy, abs=1e-6)


def test_checkpoint_of_an_older_trainer_is_not_adjusted(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "old.ckpt"
    checkpoint.save(run.last, path)
    tree = torch.load(path, weights_only=True)
    del tree["tau"]
    torch.save(tree, path)
    assert checkpoint.load(path).tau == 0.0
