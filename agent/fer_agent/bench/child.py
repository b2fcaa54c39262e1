"""A child process that measures one thing, so that its memory holds nothing else.

`python -m fer_agent.bench.child` reads one task as JSON from stdin and writes JSON lines to stdout:
`{"sample": ...}` while it works, and at its end `{"found": ...}` or `{"problem": ...}`. SIGINT,
SIGTERM and the end of stdin, which the parent holds open, end the measurement early; the results
until then are found.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from fer_agent.bench.protocol import StopFlag
from fer_agent.errors import AgentError

Tell = Callable[[dict[str, Any]], None]


def main() -> None:
    """Do the task on stdin."""
    # Libraries' prints go to stderr: stdout carries nothing but our lines.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as lines:
        os.dup2(2, 1)
        stop = StopFlag()

        def tell(content: dict[str, Any]) -> None:
            print(json.dumps(content), file=lines, flush=True)

        with stop.on_signals():
            task = json.loads(sys.stdin.readline())
            threading.Thread(target=_end_with_parent, args=(stop,), daemon=True).start()
            try:
                found = _do(task, stop, lambda sample: tell({"sample": sample}))
            except AgentError as error:
                tell({"problem": problem_of(error)})
            else:
                tell({"found": found})


def _end_with_parent(stop: StopFlag) -> None:
    # Not through Python's buffer, whose lock this thread would hold for ever.
    os.read(sys.stdin.fileno(), 1)
    stop.set()


def problem_of(error: AgentError) -> dict[str, Any]:
    """Return an error as the fields of a `Problem`."""
    return {
        "error": type(error).__name__,
        "message": str(error),
        "remedy": error.remedy,
        "exit_code": error.exit_code,
    }


def _do(task: dict[str, Any], stop: StopFlag, tell: Tell) -> dict[str, Any]:
    # Each kind loads its own libraries only: a network's memory holds neither OpenCV nor pydantic.
    if task["kind"] == "network":
        from fer_agent.bench.network import measure_network  # noqa: PLC0415

        return measure_network(task, stop)
    from fer_agent.bench.frames import measure_frames  # noqa: PLC0415

    return measure_frames(task, stop, tell)


if __name__ == "__main__":
    main()
