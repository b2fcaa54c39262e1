"""The train step, and its form as a CUDA graph.

Its tensors stay in their places in memory, so that a graph can be replayed on them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fer_trainer.augment import DRAWS, augment, draw_order, draw_view
from fer_trainer.losses import distillation_losses, label_loss, soften
from fer_trainer.mixing import Mixing, draw_mixing, mix, mixes
from fer_trainer.optim import following_share, learning_rate
from fer_trainer.views import TrainingView

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightning_fabric import Fabric
    from torch import nn

    from fer_trainer.data.faceset import FaceSet, Float32Array
    from fer_trainer.optim import MovingAverage
    from fer_trainer.recipe import Recipe
    from fer_trainer.teachers import Teacher

_WARM_UP = 3
"""Steps before a recording: memory, kernels and the optimiser's state have found their places."""


class TrainStep:
    """The train step: views, teacher, losses, gradients, optimiser, moving average.

    It takes no argument and reads no number on the host: `begin` copies an epoch's numbers to the
    device, and a counter there selects the step's. So a CUDA graph can hold the whole of it.

    Args:
        recipe: all switches.
        training: the training images.
        fabric: launched; each of its processes takes its rows.
        model: the network, set up by Fabric.
        stepper: its optimiser, set up by Fabric.
        lr: the scalar that the optimiser reads.
        average: follows the network.
        teacher: when there is one, the loss is that of distillation.

    Attributes:
        count: steps in an epoch.
        batch_size: images in a process's batch.
        losses: of the epoch's steps so far, float32 (S,).
    """

    def __init__(
        self,
        recipe: Recipe,
        training: FaceSet,
        fabric: Fabric,
        *,
        model: nn.Module,
        stepper: torch.optim.Optimizer,
        lr: Tensor,
        average: MovingAverage,
        teacher: Teacher | None,
    ) -> None:
        device = fabric.device
        self._recipe, self._fabric, self._teacher = recipe, fabric, teacher
        self._model, self._stepper, self._lr, self._average = model, stepper, lr, average
        self._images = torch.tensor(training.images, device=device)  # uint8 (N, H, W)
        self._targets = torch.tensor(training.targets, device=device)  # (N, C)
        self._chances = _chances(training, balanced=recipe.data.balanced)  # (N,)
        self.batch_size = min(recipe.train.batch_size, len(training) // fabric.world_size)
        self.count = len(training) // (self.batch_size * fabric.world_size)
        self.losses = torch.zeros(self.count, device=device)
        self._at = torch.zeros(1, dtype=torch.int64, device=device)
        self._augment = recipe.augment
        self._views = torch.empty(len(training), len(DRAWS), device=device)
        self._drawn: list[Tensor] = []  # as `_draw` gives them

    def images(self, steps: int) -> int:
        """Count the images that all processes see in some steps."""
        return steps * self.batch_size * self._fabric.world_size

    def begin(self, epoch: int) -> None:
        """Copy an epoch's numbers to the device."""
        view = TrainingView(self._recipe.train.seed, epoch, self._recipe.augment)
        view = self._teacher.view(epoch, view) if self._teacher else view
        self._augment = view.augment
        views = draw_view(view.seed, view.number, len(self._images))
        self._views.copy_(torch.from_numpy(views))
        fresh = self._draw(epoch)
        if self._drawn:
            for table, one in zip(self._drawn, fresh, strict=True):
                table.copy_(one)
        else:
            self._drawn = [one.to(self._at.device) for one in fresh]
        self._at.zero_()
        self.losses.zero_()

    def __call__(self) -> dict[str, Tensor]:
        """Make the epoch's next step; gives its named losses, scalars."""
        recipe = self._recipe
        rows = [table.index_select(0, self._at)[0] for table in self._drawn]
        chosen, lr, follow, *mixing = rows
        views = augment(self._images[chosen], self._views[chosen], self._augment)
        wanted = self._targets[chosen]
        if self._teacher:
            teacher_logits = self._teacher.logits(views, chosen)
            soft_targets = soften(teacher_logits, recipe.distill.temperature)
            wanted = torch.cat([wanted, soft_targets], dim=1)  # mixed together, split again below
        if mixing:
            views, wanted = mix(views, wanted, Mixing(*mixing))
        parts = _losses(self._model(views), wanted, recipe, self._targets.shape[1])
        self._stepper.zero_grad()
        self._fabric.backward(parts["loss"])
        self._lr.copy_(lr)
        self._stepper.step()
        self._average.follow(follow)
        parts = {name: part.detach() for name, part in parts.items()}
        self.losses.index_copy_(0, self._at, parts["loss"].view(1))
        self._at += 1
        return parts

    def _draw(self, epoch: int) -> list[Tensor]:
        """Draw and schedule an epoch's S steps of this process, a row a step.

        Returns:
            The images of each batch, int64 (S, B); learning rates and shares by which the average
            follows, float32 (S,) each; then those of `Mixing`, where the recipe mixes.
        """
        section, optim, count = self._recipe.train, self._recipe.optim, self.count
        order = torch.from_numpy(draw_order(section.seed, epoch, self._chances))
        processes = self._fabric.world_size
        batches = order[: self.images(count)].view(count, processes, self.batch_size)
        steps = range(epoch * count, (epoch + 1) * count)
        rates = [learning_rate(optim, step / (section.epochs * count)) for step in steps]
        shares = [following_share(optim.ema_decay, step) for step in steps]
        drawn = [batches[:, self._fabric.global_rank], torch.tensor(rates), torch.tensor(shares)]
        if mixes(self._recipe.augment):
            drawn += draw_mixing(
                section.seed, epoch,
                steps=count, batch_size=self.batch_size, size_px=self._images.shape[-1],
                section=self._recipe.augment,
            )  # fmt: skip
        return drawn


class CudaGraphStep:
    """A train step that is captured in a CUDA graph after a few times, and replayed from then on.

    A step of a small network is some hundred short kernels; launched one by one they keep the
    processor busy, and a GPU idle. A replay launches all at once.

    Args:
        step: what is recorded; it must launch the same kernels on the same memory each time.

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
    """

    def __init__(self, step: Callable[[], dict[str, Tensor]]) -> None:
        self._step = step
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch gives no types
        self._graph: torch.cuda.CUDAGraph | None = None
        self._parts: dict[str, Tensor] = {}
        self._done = 0

    def __call__(self) -> dict[str, Tensor]:
        """Make the step; the losses it gives are overwritten by the next."""
        if self._done < _WARM_UP:
            self._done += 1
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                parts = self._step()
            torch.cuda.current_stream().wait_stream(self._stream)
            return parts
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._parts = self._step()
        self._graph.replay()
        return self._parts


def _chances(training: FaceSet, *, balanced: bool) -> Float32Array:
    """Give each training image's chance of being drawn; balanced, all classes have the same."""
    if not balanced:
        return np.ones(len(training), np.float32)
    chances: Float32Array = training.targets @ (1.0 / training.targets.sum(axis=0))
    return chances.astype(np.float32)


def _losses(logits: Tensor, wanted: Tensor, recipe: Recipe, classes: int) -> dict[str, Tensor]:
    """Give the named losses; `wanted` is (B, C), or (B, 2 C) with soft targets appended."""
    if wanted.shape[1] == classes:
        return {"loss": label_loss(logits, wanted, recipe.loss)}
    targets, soft_targets = wanted[:, :classes], wanted[:, classes:]
    return distillation_losses(logits, targets, soft_targets, recipe.loss, recipe.distill)
