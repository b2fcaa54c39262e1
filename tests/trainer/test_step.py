"""The moving average, and the train step in a CUDA graph, equal to one that is launched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from fer_trainer import loop
from fer_trainer.fabric import launch
from fer_trainer.optim import MovingAverage, following_share
from fer_trainer.step import TrainStep

if TYPE_CHECKING:
    from pathlib import Path

    from fer_trainer.data.faceset import FaceSet
    from fer_trainer.recipe import Recipe

EVERYTHING = {
    "augment.light": 0.5, "augment.blur": 0.5, "augment.noise": 0.5, "augment.resample": 0.5,
    "augment.jpeg": 0.5, "augment.mixup": 0.3, "augment.cutmix": 0.5, "augment.erasing": 0.5,
    "train.epochs": 4,
}  # fmt: skip


def test_average_follows_by_the_given_share() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    average = MovingAverage(network)
    start = average.module[0].weight.clone()
    with torch.no_grad():
        network[0].weight.add_(1.0)
    network[1].num_batches_tracked.add_(5)
    average.follow(torch.tensor(0.25))
    assert torch.allclose(average.module[0].weight, start + 0.25)
    assert int(average.module[1].num_batches_tracked) == 5
    average.follow(torch.tensor(1.0))
    assert torch.allclose(average.module[0].weight, network[0].weight)


def test_average_starts_as_the_network_and_slows_down() -> None:
    assert following_share(0.9, 0) == 1.0
    assert following_share(0.9, 1) == pytest.approx(1.0 - 2.0 / 11.0)
    assert following_share(0.9, 1000) == pytest.approx(0.1)
    assert following_share(0.0, 500) == 1.0


@pytest.mark.hardware
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_replayed_run_ends_with_the_weights_of_a_launched_one(
    recipe: Recipe, faces: FaceSet, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("CUDA graphs need a GPU")
    switches = {**EVERYTHING, "optim.name": name, "optim.lr": 0.001, "network.dropout": 0.0}
    whole = recipe.with_(switches)
    fabric = launch(whole, accelerator="cuda")
    replayed = loop.train(whole, faces, tmp_path / "replayed", fabric)
    monkeypatch.setattr(loop, "CudaGraphStep", lambda step: step)
    launched = loop.train(whole, faces, tmp_path / "launched", fabric)
    again = loop.train(whole, faces, tmp_path / "again", fabric)
    # a GPU's sums differ in their order from run to run; the recording may not add to that
    noise = _distance(launched.ema, again.ema)
    assert _distance(launched.ema, replayed.ema) <= 3.0 * noise + 1e-4
    start = loop.train(whole.with_({"train.epochs": 1}), faces, tmp_path / "short", fabric)
    assert _distance(launched.ema, start.ema) > 10.0 * noise


@pytest.mark.hardware
def test_recorded_steps_take_each_epochs_numbers(
    recipe: Recipe, faces: FaceSet, tmp_path: Path
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("CUDA graphs need a GPU")
    seen: list[torch.Tensor] = []
    begin = TrainStep.begin

    def beginning(step: TrainStep, epoch: int) -> None:
        seen.append(step.losses.clone())
        begin(step, epoch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainStep, "begin", beginning)
        longer = recipe.with_({"train.epochs": 6})
        loop.train(longer, faces, tmp_path, launch(longer, accelerator="cuda"))
    ended = torch.stack(seen[1:])
    assert torch.all(ended > 0)
    assert len(torch.unique(ended)) == ended.numel()


def _distance(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    return max(
        float((first[name].float() - second[name].float()).abs().max())
        for name in first
        if first[name].is_floating_point()
    )
