"""Logit adjustment: the classes that it raises, its choice, and models that keep it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from fer_trainer import checkpoint
from fer_trainer.adjust import TAUS, Adjustment, adjusted, choose
from fer_trainer.data.faceset import Split
from fer_trainer.deploy import network_of
from fer_trainer.errors import CheckpointError
from fer_trainer.evaluate import evaluate, open_subject
from fer_trainer.inference import predict
from fer_trainer.metrics import PredictionFigures, figures, fit_temperature, probabilities
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


SHARES = np.array([0.9, 0.1], np.float32)


def worth(
    logits: np.ndarray, truth: np.ndarray, one: Adjustment, shares: np.ndarray
) -> PredictionFigures:
    labels = ("often", "seldom", "hardly")[: len(shares)]
    return figures(probabilities(logits + one.lift(shares), 1.0), truth, labels)


def test_classes_that_are_said_too_seldom_are_raised() -> None:
    logits, truth = shy(4_000, lead=1.5)
    chosen = choose(logits, SHARES, truth, RARE)
    assert 0.4 < chosen.tau <= 1.0
    before = worth(logits, truth, Adjustment(0.0, only_rare=False), SHARES)
    after = worth(logits, truth, chosen, SHARES)
    assert after.macro_f1 > before.macro_f1 + 0.02
    assert after.accuracy > before.accuracy


def test_network_that_says_them_often_enough_stays_as_it_is() -> None:
    logits, truth = shy(4_000, lead=-2.0)
    assert choose(logits, SHARES, truth, RARE) == Adjustment(0.0, only_rare=True)


def test_only_rare_classes_are_raised_where_that_is_better() -> None:
    """Two frequent classes are separated well as they are; a third is predicted too seldom."""
    generator = np.random.default_rng(1)
    shares = np.array([0.6, 0.35, 0.05], np.float32)
    truth = generator.choice(3, 6_000, p=shares)
    seen = 1.5 * np.eye(3)[truth] + generator.normal(0.0, 0.8, (6_000, 3))
    # Bayes' rule for these densities, but for the third class, which gets 1.5 too little
    logits = (1.5 / 0.8**2 * seen + np.log(shares) - [0, 0, 1.5]).astype(np.float32)
    labels = ("often", "seldom", "hardly")
    chosen = choose(logits, shares, truth, labels)
    assert chosen.only_rare
    assert chosen.tau > 0.0
    other = max(
        (worth(logits, truth, Adjustment(tau, only_rare=False), shares) for tau in TAUS),
        key=lambda found: found.accuracy + found.macro_f1,
    )
    ours = worth(logits, truth, chosen, shares)
    assert ours.accuracy + ours.macro_f1 > other.accuracy + other.macro_f1


def test_lift_of_rare_classes_leaves_frequent_ones() -> None:
    shares = np.array([0.5, 0.25, 0.2, 0.05], np.float32)
    every, rare = (Adjustment(0.5, only_rare=only).lift(shares) for only in (False, True))
    assert np.allclose(every, 0.5 * np.log(0.25 / shares))
    assert np.allclose(rare, [0.0, 0.0, 0.5 * np.log(1.25), 0.5 * np.log(5.0)])


def uneven(faces: FaceSet) -> FaceSet:
    """The first class has two training images, the others ten."""
    first = np.flatnonzero((faces.split == Split.TRAIN) & (faces.hard_labels == 0))
    kept = np.ones(len(faces), dtype=bool)
    kept[first[2:]] = False
    return faces.take(kept)


def test_biases_are_raised_by_the_rarity_of_their_class(
    run: Run, faces: FaceSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = Adjustment(0.5, only_rare=False)
    monkeypatch.setattr("fer_trainer.adjust.choose", lambda *_: fixed)
    state, some = checkpoint.load(run.folder / "best.ckpt"), uneven(faces)
    made = adjusted(state, some)
    assert made.tau == 0.5
    valid = some.only(Split.VALID)
    before, after = (
        predict(network_of(one), valid.images, torch.device("cpu")) for one in (state, made)
    )
    temperature = fit_temperature(before.numpy(), valid.hard_labels)
    shares = torch.tensor([2.0] + [10.0] * 6) / 62.0
    expected = before + 0.5 * temperature * torch.log(1.0 / 7.0 / shares)
    assert torch.allclose(after, expected, atol=1e-4)
    changed = [name for name in state.ema if not torch.equal(state.ema[name], made.ema[name])]
    assert changed == ["module.body.head.3.bias"]
    with pytest.raises(CheckpointError, match=r"adjusted already, by 0\.5"):
        adjusted(made, some)


def test_model_and_kept_checkpoint_of_an_adjusted_network_agree(
    run: Run, faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = Adjustment(0.25, only_rare=True)
    monkeypatch.setattr("fer_trainer.adjust.choose", lambda *_: fixed)
    made = adjusted(checkpoint.load(run.folder / "best.ckpt"), uneven(faces))
    done = release(made, faces, tmp_path / "tiny", version="1.0.0")
    card = (tmp_path / "tiny" / "card.md").read_text()
    assert "below an even share of the training images were moved by 0.25 of" in card
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
