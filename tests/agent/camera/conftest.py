"""Makes the fakes beside these tests importable, and films in real formats.

`sys.path`: importlib mode leaves it alone.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def encode(require_program: Callable[[str], Path]) -> Callable[[Path, str, int], bytes]:
    """A function that makes a film of a moving test picture; two of the kind .ts make one."""
    program = require_program("ffmpeg")

    def make(path: Path, size: str, count: int) -> bytes:
        picture = f"testsrc=size={size}:rate=10"
        encoder = ["-frames:v", str(count), "-c:v", "libx264", "-pix_fmt", "yuv420p"]
        command = [program, "-v", "error", "-f", "lavfi", "-i", picture, *encoder, path]
        subprocess.run(command, check=True)
        return path.read_bytes()

    return make
