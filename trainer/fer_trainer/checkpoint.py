"""Checkpoint files, each with everything that a run needs to go on.

A file is written whole or not at all.
"""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import time
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fer_trainer.errors import CheckpointError
from fer_trainer.files import write_whole
from fer_trainer.recipe import Recipe

_FORMAT = 1

_REST = 20.0
"""Time between two savings, in times that the last one took."""

_BROKEN = (
    OSError, EOFError, RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile,
    AttributeError, KeyError, TypeError, ValueError,
)  # fmt: skip
"""Errors of reading a file of another kind, or of another version's recipe."""


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A run after a whole epoch.

    Attributes:
        recipe: the recipe as a JSON tree.
        labels: class words in output order.
        dataset: name of the data set.
        data_sha256: its content.
        commit: the trainer's commit, with `+` when files differed from it; or `unknown`.
        epoch: epochs done.
        step: optimiser steps done.
        selected_on: the split that chose the best epoch: `valid` or `test`.
        best_accuracy: of the best epoch on that split.
        best_epoch: counted from 1; 0 before the first.
        network: weights as trained.
        ema: their moving average; the same as `network` where that is off.
        optimizer: the optimiser's state.
        random: torch's generator states by rank; NumPy's draws are functions of seed and epoch.
        device: what it was trained on.
        tau: of the logit adjustment in the averaged weights; 0 as trained.
        tau_of: the classes that it raised: `rare` ones or `all`.
        scaled: whether vector scaling is in the averaged weights.
    """

    recipe: dict[str, Any]
    labels: tuple[str, ...]
    dataset: str
    data_sha256: str
    commit: str
    epoch: int
    step: int
    selected_on: str
    best_accuracy: float
    best_epoch: int
    network: dict[str, Any]
    ema: dict[str, Any]
    optimizer: dict[str, Any]
    random: list[torch.Tensor]
    device: str = "unknown"
    tau: float = 0.0
    tau_of: str = "all"
    scaled: bool = False

    @property
    def parsed_recipe(self) -> Recipe:
        """The recipe, validated again."""
        return Recipe.model_validate(self.recipe)


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint; the old file stays until the new one is on the disk.

    Raises:
        StorageError: the disk is full or refuses the file.
    """
    # not asdict: it would copy every tensor
    fields = {name: getattr(checkpoint, name) for name in Checkpoint.__dataclass_fields__}
    write_whole(path, lambda file: torch.save({"format": _FORMAT, **fields}, file))


class Keeper:
    """Keeps a run's last and best checkpoint on the disk, without spending the run's time on it.

    The first is written at once. After that saving takes at most a twentieth of the time: epochs
    of a few tenths of a second, on a GPU, are not all written, and a killed run does the last few
    again. A better checkpoint of that time is held in memory.

    Args:
        run: receives `last.ckpt` and `best.ckpt`.
        epoch: of the checkpoint that is there already; 0 when there is none.

    Attributes:
        epoch: of the last checkpoint on the disk.
    """

    def __init__(self, run: Path, *, epoch: int) -> None:
        self._run = run
        self.epoch = epoch
        self._best: Checkpoint | None = None
        self._rest_until = 0.0

    def keep(self, checkpoint: Checkpoint, *, better: bool, final: bool) -> None:
        """Take a checkpoint of tensors that the next step will change.

        Args:
            checkpoint: after an epoch.
            better: whether it is the best so far.
            final: whether it is the run's last, which is always written.

        Raises:
            StorageError: the disk is full or refuses the file.
        """
        due = final or time.perf_counter() >= self._rest_until
        if better:
            self._best = checkpoint if due else copy.deepcopy(checkpoint)
        if not due:
            return
        started = time.perf_counter()
        if self._best:  # first: a run killed in between does this epoch, and this file, again
            save(self._best, self._run / "best.ckpt")
            self._best = None
        save(checkpoint, self._run / "last.ckpt")
        self.epoch = checkpoint.epoch
        ended = time.perf_counter()
        self._rest_until = ended + _REST * (ended - started)


def compact(checkpoint: Checkpoint) -> Checkpoint:
    """Reduce a checkpoint to its averaged weights, in half precision.

    Biases and normalisation stay in full precision: they are few, and their range is wide.

    Returns:
        A checkpoint for `--weights`, `evaluate` and `export`; a run does not resume from it.
    """
    average = {
        name: value.half() if value.is_floating_point() and value.ndim > 1 else value
        for name, value in checkpoint.ema.items()
    }
    return replace(checkpoint, network={}, ema=average, optimizer={}, random=[])


def load(path: Path, *, labels: tuple[str, ...] | None = None) -> Checkpoint:
    """Read a checkpoint, running no code from it.

    Args:
        path: the file.
        labels: when given, the class list it must have.

    Raises:
        CheckpointError: the file is missing, broken or of another class list.
    """
    try:
        if path.exists() and not zipfile.is_zipfile(path):
            # torch would try its older format, whose reader fails in many other ways
            raise ValueError("it is damaged, or another kind of file")
        tree = torch.load(path, map_location="cpu", weights_only=True)
        if tree.pop("format") != _FORMAT:
            raise KeyError("format")
        checkpoint = Checkpoint(**{**tree, "labels": tuple(tree["labels"])})
        Recipe.model_validate(checkpoint.recipe)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no {path}", remedy="train first") from error
    except _BROKEN as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{path} is no checkpoint of this trainer: {reason}",
            remedy="give another, or train anew",
        ) from error
    if labels is not None and labels != checkpoint.labels:
        raise CheckpointError(
            f"{path} was trained on {', '.join(checkpoint.labels)}, "
            f"but the data has {', '.join(labels)}",
            remedy="use the same data and label map, or another run folder",
        )
    return checkpoint


def best_of(run: Path) -> Path:
    """Give the best epoch of a run folder, or the checkpoint itself."""
    return run / "best.ckpt" if run.is_dir() else run


def commit() -> str:
    """Return the commit of the trainer's source, `+` appended when it has changes.

    Where the source is no checkout, as in a container, it is what FER_COMMIT says, or `unknown`.
    """
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(  # noqa: S603  # fixed arguments
            ["git", "-C", str(here), *arguments],  # noqa: S607  # the user's own git
            capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("FER_COMMIT", "unknown")
