"""A pending version that ends the agent with an error, seen from outside as `fer-agent` runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from fer_agent.config import loading
from fer_agent.updates.activation import change

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

END_S = 120.0
"""What a process may take to end on a busy machine."""

NAME = "tiny"
TRAITS = {"fails_on_white": True, "white": 190.0}
"""Fails on the face in the bright portrait below, 221 on average, and not in the dark one, 151."""


class PortraitBoard:
    """A board with a store, a face detector and two portraits to look at."""

    def __init__(self, folder: Path, store: Path, shared: Path) -> None:
        self.store = store
        self.dark, self.bright = shared / "media" / "astronaut.png", folder / "bright.png"
        with Image.open(self.dark) as portrait:
            pixels = np.asarray(portrait.convert("RGB"))
        Image.fromarray((0.4 * pixels + 160).astype(np.uint8)).save(self.bright)
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("FER_")},
            "HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "FER_AGENT__CLASSIFIER__MODEL": NAME,
            "FER_AGENT__MODELS__PATH": str(store),
            "FER_AGENT__DETECTOR__MODEL_FILE": str(shared / "models" / "yunet_s_dynamic.onnx"),
            "FER_AGENT__TRACKER__CONFIRM_FRAMES": "1",
        }
        self._config = folder / "config.toml"
        # A busy machine may find the second of two like versions slower than the first.
        self._config.write_text(f'[models]\npath = "{store}"\nslowdown_limit = 20.0\n')

    def activate(self, staged: Path) -> None:
        """Activate a fetched version as a sync does, its self-test included."""
        config = loading.load_incomplete(self._config)
        change.configured(config).activate_staged(staged, name=NAME)

    def start(self, *words: str, **settings: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "fer_agent.cli", *words],
            env={**self._environment, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, source: Path, record: Path) -> tuple[int, str, dict[str, Any]]:
        """Let the agent look at a file; return exit status, stderr and the record's header."""
        process = self.start(
            "run", "--context", "research", "--broker", "none",
            "--source", str(source), "--record", str(record),
        )  # fmt: skip
        _, stderr = process.communicate(timeout=END_S)
        header = json.loads(record.read_text(encoding="utf-8").splitlines()[0])
        return process.returncode, stderr, header

    def confirm(self, wait_for: Callable[..., None]) -> None:
        """Let the agent run until the linked version is confirmed."""
        process = self.start(
            "run", "--context", "research", "--broker", "none", "--source", str(self.dark),
            FER_AGENT__CAMERA__MAIN__LOOP="true",
            FER_AGENT__MODELS__CONFIRM_MINUTES="0.001",
        )  # fmt: skip
        journal = self.store / ".state" / "activation" / f"{NAME}.json"
        try:
            wait_for(lambda: json.loads(journal.read_text())["phase"] == "confirmed")
        finally:
            process.terminate()
            _, stderr = process.communicate(timeout=END_S)
        assert process.returncode == 0, stderr

    def listed(self) -> dict[str, Any]:
        """Return what `fer-agent models list` says about the model."""
        out, _ = self.start("models", "list", "--json").communicate(timeout=END_S)
        (row,) = (each for each in json.loads(out)["models"] if each["name"] == NAME)
        return dict(row)


@pytest.mark.slow
def test_the_start_after_a_version_broke_the_agent_goes_back_to_the_one_before(
    tmp_path: Path,
    shared: Path,
    store: Path,
    stage: Callable[..., Path],
    wait_for: Callable[..., None],
) -> None:
    """Both versions fail on the bright portrait, so the one before cannot take over at once."""
    device = PortraitBoard(tmp_path, store, shared)
    device.activate(stage("1.0.0", **TRAITS))
    device.confirm(wait_for)
    device.activate(stage("1.1.0", **TRAITS))
    record = tmp_path / "record.jsonl"

    code, stderr, broken = device.run(device.bright, record)
    assert code != 0
    assert "out of data bounds" in stderr
    assert device.listed()["current"] == "1.1.0"

    code, stderr, header = device.run(device.dark, record)
    assert code == 0, stderr
    assert "tiny went back from 1.1.0 to 1.0.0" in stderr
    assert header["model_sha256"] != broken["model_sha256"]
    row = device.listed()
    assert (row["current"], row["refused"]) == ("1.0.0", ["1.1.0"])
