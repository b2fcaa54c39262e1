"""An agent that cannot be put together leaves nothing open."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from fer_agent.app import compose
from fer_agent.config.model import AgentConfig
from fer_agent.errors import CameraError, ModelFileError


def descriptors() -> set[str]:
    """Return the files and sockets that this process has open."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the descriptor of this very listing
            found.add(str(path.readlink()))
    return found


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"classifier": {"model": "none-of-that-name"}}, ModelFileError),
        ({"camera": {"front": {"source": "gopher://camera"}}}, CameraError),
    ],
)
def test_a_part_that_cannot_be_made_closes_those_made_before_it(
    tmp_path: Path, changes: dict[str, object], error: type[Exception]
) -> None:
    content = {
        "deployment": {"context": "home"},
        "camera": {"front": {"source": str(tmp_path)}},
        "detector": {"backend": "haar"},
        "models": {"path": str(tmp_path)},
    }
    config = AgentConfig.model_validate(content | changes)
    before = descriptors()
    with pytest.raises(error):
        compose.build(config, compose.RunOptions(record=tmp_path / "record.jsonl"))
    opened = {name for name in descriptors() - before if "socket" in name or "record" in name}
    assert opened == set()
