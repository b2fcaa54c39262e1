"""Help that loads nothing heavy, and the end by Ctrl-C, of all commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from fer_trainer import checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE_S = 120.0
IMAGES = 70
"""In the training split of the tiny set."""


def test_help_of_all_commands_imports_nothing_heavy() -> None:
    code = """
import sys
from typer.main import get_command
from typer.testing import CliRunner
from fer_trainer.cli import app

names = ["", *get_command(app).commands]
for name in names:
    shown = CliRunner().invoke(app, [name, "--help"] if name else ["--help"])
    assert shown.exit_code == 0 and "Usage: " in shown.output, shown.output
heavy = {"torch", "cv2", "onnxruntime", "sklearn", "numpy", "lightning_fabric", "tuf"}
print(len(names), *heavy & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["13"], done.stdout + done.stderr


class Training:
    """`fer-train train` as a user starts it; the same command goes on with the same run."""

    def __init__(self, data: Path, out: Path) -> None:
        # A shell in the background lets its children ignore Ctrl-C; a terminal does not.
        code = (
            "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "from fer_trainer.cli import main; main()"
        )
        words = ["train", "--data", data, "--any-counts", "--out", out, "--recipe", "tests-smoke"]
        words += ["--threads", "1", "--epochs", "4", "--set", "train.batch_size=2"]
        self._log = out / "log.jsonl"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, words)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def log(self) -> list[dict[str, Any]]:
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [json.loads(line) for line in lines]

    def epochs(self) -> list[int]:
        return [record["epoch"] for record in self.log()]

    def wait_for_epochs(self, count: int) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while len(self.epochs()) < count:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline_s
            time.sleep(0.01)

    def end(self) -> tuple[int, str, str]:
        stdout, stderr = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, stdout, stderr


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def first(fer2013_archive: Path, out: Path) -> Iterator[Training]:
    training = Training(fer2013_archive, out)
    yield training
    training.process.kill()
    training.process.communicate()


@pytest.mark.slow
def test_ctrl_c_amid_an_epoch_ends_with_a_sentence_and_the_run_goes_on(
    first: Training, fer2013_archive: Path, out: Path
) -> None:
    first.wait_for_epochs(1)
    time.sleep(0.25 * IMAGES / first.log()[0]["images_per_s"])  # a quarter of the next one
    first.process.send_signal(signal.SIGINT)
    code, stdout, stderr = first.end()
    assert (code, stdout) == (130, "")
    *shown, last = stderr.splitlines()
    assert last == "fer-train: stopped; the same command goes on after the last saved epoch"
    assert [line.split()[0] for line in shown] == ["epoch"] * len(first.epochs())
    assert checkpoint.load(out / "last.ckpt").epoch == len(first.epochs()) < 4
    assert not list(out.glob("*.partial"))
    again = Training(fer2013_archive, out)
    code, stdout, stderr = again.end()
    assert code == 0, stderr
    assert "of 4: accuracy" in stdout
    assert again.epochs() == [1, 2, 3, 4]
