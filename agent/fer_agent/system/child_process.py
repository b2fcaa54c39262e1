"""Modules of this package that run in a child process, which may crash without taking ours down."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

Answer = TypeVar("Answer", bound=BaseModel)

STDERR_TAIL: Final = 300
"""Characters of a failed child's stderr in which its reason is looked for."""


class ChildError(Exception):
    """A child process gave no answer; the message says how it ended."""


def ask(module: str, task: BaseModel, answer: type[Answer], timeout_s: float) -> Answer:
    """Run a module with a task on stdin, as JSON, and read its answer from stdout.

    Raises:
        ChildError: it crashed, ended without an answer, or did not end in time.
    """
    try:
        done = subprocess.run(  # noqa: S603  our own interpreter and module
            [sys.executable, "-m", module],
            input=task.model_dump_json(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
        )
    except subprocess.TimeoutExpired:
        raise ChildError(f"did not end within {timeout_s:g} s") from None
    if done.returncode < 0:
        raise ChildError(f"crashed with {signal.Signals(-done.returncode).name}")
    try:
        return answer.model_validate_json(done.stdout)
    except ValidationError:
        last = done.stderr.strip()[-STDERR_TAIL:].splitlines()[-1:] or ["no message"]
        raise ChildError(f"ended with {done.returncode}: {last[0]}") from None


def how_it_ended(returncode: int) -> str:
    """Return "by SIGKILL" or "with exit status 3"."""
    if returncode < 0:
        return f"by {signal.Signals(-returncode).name}"
    return f"with exit status {returncode}"
