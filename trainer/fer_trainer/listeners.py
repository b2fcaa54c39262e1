"""Listeners of a training, a JSON-lines log, TensorBoard and a progress bar."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from fer_trainer.files import append_line

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self


class JsonLines:
    """Appends one JSON object an epoch to `log.jsonl`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_step(self, epoch: int, step: int, steps: int, record: dict[str, float]) -> None:
        """Ignore steps."""

    def on_epoch(self, record: dict[str, Any]) -> None:
        """Append the epoch, with the time in seconds since 1970.

        Raises:
            StorageError: the disk refuses the line.
        """
        append_line(self._path, json.dumps({"time": round(time.time(), 3), **record}))


class TensorBoard:
    """Writes scalars for TensorBoard."""

    def __init__(self, folder: Path) -> None:
        self._writer = SummaryWriter(str(folder))

    def on_step(self, epoch: int, step: int, steps: int, record: dict[str, float]) -> None:
        """Write losses, rate and speed against the step of the run."""
        for name, value in record.items():
            self._writer.add_scalar(f"step/{name}", value, (epoch - 1) * steps + step)

    def on_epoch(self, record: dict[str, Any]) -> None:
        """Write the epoch's figures."""
        for name, value in record.items():
            self._writer.add_scalar(f"epoch/{name}", value, record["epoch"])
        self._writer.flush()


class ProgressBar:
    """A progress bar on stderr, or one line an epoch where stderr is no terminal."""

    def __init__(self, epochs: int) -> None:
        self._console = Console(stderr=True)
        self._epochs = epochs
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=None, figures="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Leave one line of text behind."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def on_step(self, epoch: int, step: int, steps: int, record: dict[str, float]) -> None:
        """Move the bar."""
        self._bar.update(
            self._task,
            total=self._epochs * steps,
            completed=(epoch - 1) * steps + step,
            description=f"epoch {epoch}/{self._epochs}",
            figures=f"loss {record['loss']:.3f}  {record['images_per_s']:.0f} img/s",
        )

    def on_epoch(self, record: dict[str, Any]) -> None:
        """Leave one line behind."""
        figures = "  ".join(
            f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}"
            for name, value in record.items()
        )
        self.say(figures)
