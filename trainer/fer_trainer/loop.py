"""The training loop, with the choice of the best epoch and the checkpoints."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import torch

from fer_trainer import checkpoint as checkpoints
from fer_trainer.checkpoint import Checkpoint, Keeper
from fer_trainer.data.faceset import Split
from fer_trainer.errors import CheckpointError, DataError, DivergedError
from fer_trainer.fabric import device_name
from fer_trainer.inference import predict
from fer_trainer.networks.build import build_network
from fer_trainer.optim import MovingAverage, make_optimizer, restore_optimizer
from fer_trainer.step import CudaGraphStep, TrainStep

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lightning_fabric import Fabric

    from fer_trainer.data.faceset import FaceSet
    from fer_trainer.recipe import Recipe, TrainSection
    from fer_trainer.teachers import Teacher

_LOOK_EVERY = 20
"""Steps between looks at the loss: each look waits for the device."""


class Listener(Protocol):
    """Receives the progress of a training; progress bars and logs are listeners."""

    def on_step(self, epoch: int, step: int, steps: int, record: dict[str, float]) -> None:
        """Receive a step within an epoch, every few steps; `record` holds losses and speed."""
        ...

    def on_epoch(self, record: dict[str, Any]) -> None:
        """Receive an epoch's record at its end."""
        ...


def train(
    recipe: Recipe,
    faces: FaceSet,
    run: Path,
    fabric: Fabric,
    *,
    teacher: Teacher | None = None,
    weights: Path | None = None,
    listeners: Sequence[Listener] = (),
) -> Checkpoint:
    """Train a network; goes on where the run folder's last checkpoint ended.

    Args:
        recipe: all switches.
        faces: training images and the split that chooses the epoch.
        run: receives `last.ckpt` and `best.ckpt`, as `Keeper` says.
        fabric: launched; says on what and on how many devices.
        teacher: when there is one, the loss is that of distillation.
        weights: file to start from, where the recipe's network section wants one.
        listeners: receive steps and epochs; those of the first process only.

    Returns:
        The last checkpoint.

    Raises:
        DataError: a split is empty or a class has no training image.
        CheckpointError: the run folder holds a run of other data, classes or recipe.
        DivergedError: the loss is not a number.
        StorageError: a checkpoint could not be saved.
    """
    _check(faces, recipe)
    listeners = listeners if fabric.is_global_zero else ()
    section, device = recipe.train, fabric.device
    torch.manual_seed(recipe.train.seed)
    network = build_network(recipe.network, len(faces.labels), weights)
    network = network.to(device).to(memory_format=torch.channels_last)
    average = MovingAverage(network)
    lr = torch.tensor(recipe.optim.lr, device=device)
    optimizer = make_optimizer(network, recipe.optim, lr)
    state = _resume(recipe, faces, run) or _fresh(recipe, faces, fabric)
    if state.epoch:
        network.load_state_dict(state.network)
        average.load_state_dict(state.ema)
        restore_optimizer(optimizer, state.optimizer)
        _set_random_state(state.random[fabric.global_rank], device)
    fast: Any = torch.compile(network) if section.compile else network
    model, stepper = fabric.setup(fast, optimizer)
    step = TrainStep(
        recipe, faces.training(), fabric,
        model=model, stepper=stepper, lr=lr, average=average, teacher=teacher,
    )  # fmt: skip
    alone_on_gpu = device.type == "cuda" and fabric.world_size == 1
    advance = CudaGraphStep(step) if alone_on_gpu else step
    eval_split = faces.only(Split.parse(section.select_on))
    truth = torch.from_numpy(eval_split.hard_labels)
    keeper = Keeper(run, epoch=state.epoch)

    for epoch in range(state.epoch, section.epochs):
        if _patience_is_over(state, section):
            break
        started = time.perf_counter()
        model.train()
        step.begin(epoch)
        for done in range(1, step.count + 1):
            parts = advance()
            if done % _LOOK_EVERY == 0 or done == step.count:
                _stop_if_diverged(step.losses[:done], epoch * step.count, keeper.epoch)
                record = {name: float(part) for name, part in parts.items()}
                record |= {"lr": float(lr), "images_per_s": step.images(done) / _since(started)}
                for listener in listeners:
                    listener.on_step(epoch + 1, done, step.count, record)

        accuracy = _eval_accuracy(average, eval_split, truth, fabric)
        better = accuracy > state.best_accuracy
        average.n_averaged.fill_((epoch + 1) * step.count)
        state = replace(
            state,
            epoch=epoch + 1,
            step=(epoch + 1) * step.count,
            best_accuracy=accuracy if better else state.best_accuracy,
            best_epoch=epoch + 1 if better else state.best_epoch,
            network=network.state_dict(),
            ema=average.state_dict(),
            optimizer=optimizer.state_dict(),
            random=_random_states(fabric),
        )
        final = epoch + 1 == section.epochs or _patience_is_over(state, section)
        if fabric.is_global_zero:
            keeper.keep(state, better=better, final=final)
        for listener in listeners:
            listener.on_epoch({
                "epoch": epoch + 1,
                "loss": float(step.losses.mean()),
                f"{section.select_on}_accuracy": accuracy,
                "best_epoch": state.best_epoch,
                "best_accuracy": state.best_accuracy,
                "images_per_s": step.images(step.count) / _since(started),
            })  # fmt: skip
        fabric.barrier()
    return state


def _check(faces: FaceSet, recipe: Recipe) -> None:
    for split in (Split.TRAIN, Split.parse(recipe.train.select_on)):
        if not len(faces.where(split)):
            raise DataError(
                f"{faces.name} has no image for {split.name.lower()}",
                remedy="give data that has all splits",
            )
    counts = faces.targets[faces.where(Split.TRAIN)].sum(axis=0)
    for label, count in zip(faces.labels, counts, strict=True):
        if count == 0:
            raise DataError(
                f"the class {label} has no training image",
                remedy="drop it with --map, or give data that has it",
            )


def _fresh(recipe: Recipe, faces: FaceSet, fabric: Fabric) -> Checkpoint:
    return Checkpoint(
        recipe=recipe.model_dump(mode="json"),
        labels=faces.labels,
        dataset=faces.name,
        data_sha256=faces.sha256,
        commit=checkpoints.commit(),
        epoch=0,
        step=0,
        selected_on=recipe.train.select_on,
        best_accuracy=0.0,
        best_epoch=0,
        network={},
        ema={},
        optimizer={},
        random=[],
        device=device_name(fabric.device),
    )


def _resume(recipe: Recipe, faces: FaceSet, run: Path) -> Checkpoint | None:
    path = run / "last.ckpt"
    if not path.exists():
        return None
    state = checkpoints.load(path, labels=faces.labels)
    # parsed, because a newer trainer may know more switches than the one that wrote the file
    if state.data_sha256 != faces.sha256 or state.parsed_recipe != recipe:
        other = "other data" if state.data_sha256 != faces.sha256 else "another recipe"
        raise CheckpointError(
            f"{run} holds a run of {other}", remedy="give another folder as --out"
        )
    return state


def _stop_if_diverged(losses: torch.Tensor, steps_before: int, epochs_kept: int) -> None:
    finite = torch.isfinite(losses)
    if not bool(finite.all()):
        step = steps_before + int((~finite).nonzero()[0]) + 1
        kept = (
            f"last.ckpt is whole, after epoch {epochs_kept}"
            if epochs_kept
            else "no epoch was saved"
        )
        raise DivergedError(
            f"the loss is not a number at step {step}; {kept}",
            remedy="lower optim.lr with --set, and give another run folder",
        )


def _patience_is_over(state: Checkpoint, section: TrainSection) -> bool:
    return bool(section.patience) and state.epoch - state.best_epoch >= section.patience


def _since(started: float) -> float:
    return time.perf_counter() - started


def _eval_accuracy(
    average: torch.nn.Module, eval_split: FaceSet, truth: torch.Tensor, fabric: Fabric
) -> float:
    """Measure single-crop accuracy once, and agree on it: rounding differs between devices."""
    accuracy = 0.0
    if fabric.is_global_zero:
        logits = predict(average, eval_split.images, fabric.device)
        accuracy = float((logits.argmax(dim=1) == truth).float().mean())
    return float(fabric.broadcast(accuracy))


def _random_states(fabric: Fabric) -> list[torch.Tensor]:
    """Give the state of the generator that draws dropout, of every process."""
    on_gpu = fabric.device.type == "cuda"
    own = torch.cuda.get_rng_state(fabric.device) if on_gpu else torch.get_rng_state()
    states = torch.as_tensor(fabric.all_gather(own))
    return list(states.view(fabric.world_size, -1).cpu())


def _set_random_state(state: torch.Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
