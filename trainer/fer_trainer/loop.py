"""A training's whole way: views, losses, steps, the moving average, the choice of the epoch."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from fer_trainer import checkpoint as checkpoints
from fer_trainer.augment import augment, draw_order, draw_view, mix
from fer_trainer.checkpoint import Checkpoint
from fer_trainer.data.faceset import Split
from fer_trainer.errors import CheckpointError, DataError, DivergedError
from fer_trainer.fabric import device_name
from fer_trainer.inference import predict
from fer_trainer.losses import distillation_losses, label_loss, soften
from fer_trainer.networks.build import build_network
from fer_trainer.optim import learning_rate, make_optimizer, moving_average
from fer_trainer.views import View

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lightning.fabric import Fabric

    from fer_trainer.data.faceset import FaceSet, Float32Array
    from fer_trainer.recipe import Recipe
    from fer_trainer.teachers import Teacher

_LOOK_EVERY = 20
"""Steps between looks at the loss: each look waits for the device."""


class Listener(Protocol):
    """Hears how a training goes; progress bars and logs are listeners."""

    def on_step(self, epoch: int, step: int, steps: int, record: dict[str, float]) -> None:
        """Hear of a step within an epoch, every few steps; `record` holds losses and speed."""
        ...

    def on_epoch(self, record: dict[str, Any]) -> None:
        """Hear of an epoch's end."""
        ...


def train(  # noqa: C901, PLR0915  # a training is one straight way, and reads best as one
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
        run: receives `last.ckpt` after each epoch and `best.ckpt` after each better one.
        fabric: launched; says on what and on how many devices.
        teacher: when there is one, the loss is that of distillation.
        weights: file to start from, where the recipe's network section wants one.
        listeners: hear of steps and epochs; those of the first process only.

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
    section, device, seed = recipe.train, fabric.device, recipe.train.seed
    classes = len(faces.labels)
    torch.manual_seed(seed)
    network = build_network(recipe.network, classes, weights)
    network = network.to(device).to(memory_format=torch.channels_last)
    average = moving_average(network, recipe.optim.ema_decay)
    optimizer = make_optimizer(network, recipe.optim)
    state = _resume(recipe, faces, run) or _fresh(recipe, faces, fabric)
    if state.epoch:
        network.load_state_dict(state.network)
        average.load_state_dict(state.ema)
        optimizer.load_state_dict(state.optimizer)
        _set_random_state(state.random[fabric.global_rank], device)
    fast = _compiled(network, device) if section.compile else network
    model, stepper = fabric.setup(fast, optimizer)

    training = faces.training()
    images = torch.tensor(training.images, device=device)  # uint8 (N, H, W)
    targets = torch.tensor(training.targets, device=device)  # (N, C)
    chances = _chances(training, balanced=recipe.data.balanced)  # (N,)
    judge = faces.only(Split.parse(section.select_on))
    truth = torch.from_numpy(judge.hard_labels)
    batch_size = min(section.batch_size, len(images) // fabric.world_size)
    steps = len(images) // (batch_size * fabric.world_size)

    for epoch in range(state.epoch, section.epochs):
        if section.patience and epoch - state.best_epoch >= section.patience:
            break
        started = time.perf_counter()
        model.train()
        view = View(seed, epoch, recipe.augment)
        view = teacher.view(epoch, view) if teacher else view
        order = torch.from_numpy(draw_order(seed, epoch, chances)).to(device)
        draws = torch.from_numpy(draw_view(view.seed, view.number, len(images))).to(device)
        seen: list[torch.Tensor] = []
        for step in range(steps):
            start = (step * fabric.world_size + fabric.global_rank) * batch_size
            chosen = order[start : start + batch_size]
            views = augment(images[chosen], draws[chosen], view.augment)
            wanted = targets[chosen]
            if teacher:
                said = soften(teacher.logits(views, chosen, view), recipe.distill.temperature)
                wanted = torch.cat([wanted, said], dim=1)  # mixed together, parted again below
            views, wanted = mix(views, wanted, recipe.augment, seed=seed, epoch=epoch, step=step)
            lr = learning_rate(recipe.optim, (epoch * steps + step) / (section.epochs * steps))
            for group in stepper.param_groups:
                group["lr"] = lr
            parts = _losses(model(views), wanted, recipe, classes)
            stepper.zero_grad()
            fabric.backward(parts["loss"])
            stepper.step()
            average.update_parameters(network)
            seen.append(parts["loss"].detach())
            if (step + 1) % _LOOK_EVERY == 0 or step + 1 == steps:
                _stop_if_diverged(seen, epoch * steps + step + 1, epochs_done=epoch)
                rate = (step + 1) * batch_size * fabric.world_size / (time.perf_counter() - started)
                record = {name: float(part.detach()) for name, part in parts.items()}
                for listener in listeners:
                    listener.on_step(
                        epoch + 1, step + 1, steps, {**record, "lr": lr, "images_per_s": rate}
                    )

        accuracy = _judge(average, judge, truth, fabric)
        better = accuracy > state.best_accuracy
        state = replace(
            state,
            epoch=epoch + 1,
            step=(epoch + 1) * steps,
            best_accuracy=accuracy if better else state.best_accuracy,
            best_epoch=epoch + 1 if better else state.best_epoch,
            network=network.state_dict(),
            ema=average.state_dict(),
            optimizer=optimizer.state_dict(),
            random=_random_states(fabric),
        )
        if fabric.is_global_zero:
            if better:  # first: a run killed in between does this epoch, and this file, again
                checkpoints.save(state, run / "best.ckpt")
            checkpoints.save(state, run / "last.ckpt")
        rate = steps * batch_size * fabric.world_size / (time.perf_counter() - started)
        for listener in listeners:
            listener.on_epoch({
                "epoch": epoch + 1,
                "loss": float(torch.stack(seen).mean()),
                f"{section.select_on}_accuracy": accuracy,
                "best_epoch": state.best_epoch,
                "best_accuracy": state.best_accuracy,
                "images_per_s": rate,
            })  # fmt: skip
        fabric.barrier()
    return state


def _check(faces: FaceSet, recipe: Recipe) -> None:
    judge = Split.parse(recipe.train.select_on)
    for split in (Split.TRAIN, judge):
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


def _compiled(network: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Compile; on a GPU with CUDA graphs: the student's kernels are shorter than their launches."""
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    compiled: torch.nn.Module = torch.compile(network, mode=mode)  # type: ignore[assignment]  # torch says Callable
    return compiled


def _chances(training: FaceSet, *, balanced: bool) -> Float32Array:
    """Give each training image's chance of being drawn; balanced, all classes have the same."""
    if not balanced:
        return np.ones(len(training), np.float32)
    chances: Float32Array = training.targets @ (1.0 / training.targets.sum(axis=0))
    return chances.astype(np.float32)


def _losses(
    logits: torch.Tensor, wanted: torch.Tensor, recipe: Recipe, classes: int
) -> dict[str, torch.Tensor]:
    """Give the named losses; `wanted` is (B, C), or (B, 2 C) with the teacher's word behind."""
    if wanted.shape[1] == classes:
        return {"loss": label_loss(logits, wanted, recipe.loss)}
    targets, said = wanted[:, :classes], wanted[:, classes:]
    return distillation_losses(logits, targets, said, recipe.loss, recipe.distill)


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


def _stop_if_diverged(seen: list[torch.Tensor], steps_done: int, *, epochs_done: int) -> None:
    finite = torch.isfinite(torch.stack(seen))
    if not bool(finite.all()):
        step = steps_done - len(seen) + int((~finite).nonzero()[0]) + 1
        kept = (
            f"last.ckpt is whole, after epoch {epochs_done}"
            if epochs_done
            else "no epoch was saved"
        )
        raise DivergedError(
            f"the loss is not a number at step {step}; {kept}",
            remedy="lower optim.lr with --set, and give another run folder",
        )


def _judge(average: torch.nn.Module, judge: FaceSet, truth: torch.Tensor, fabric: Fabric) -> float:
    """Measure single-crop accuracy once, and agree on it: rounding differs between devices."""
    accuracy = 0.0
    if fabric.is_global_zero:
        logits = predict(average, judge.images, fabric.device)
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
