"""Runs measuring processes, one after the other, and can end them early."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from fer_agent.bench.child import problem_of
from fer_agent.errors import InferenceError
from fer_agent.system.child_process import how_it_ended

_MODULE: Final = "fer_agent.bench.child"


class Runner:
    """Starts measuring processes; `run` from one thread, `stop` also from a signal handler."""

    def __init__(self) -> None:
        self.stopped = False
        """True once `stop` was called."""
        self._process: subprocess.Popen[str] | None = None

    def run(
        self, task: dict[str, Any], on_sample: Callable[[dict[str, Any]], None] | None = None
    ) -> dict[str, Any]:
        """Do one task.

        Args:
            task: see `fer_agent.bench.child`.
            on_sample: called with each sample while the process works.

        Returns:
            The fields found, or `{"problem": ...}`; after `stop` the results until then, which may
            be none.
        """
        if self.stopped:
            return {}
        # In a separate session, so that the terminal's Ctrl-C comes to this process alone.
        with subprocess.Popen(  # noqa: S603  our own interpreter and module
            [sys.executable, "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            self._process = process
            if self.stopped:
                self.stop()
            try:
                answer = _converse(process, task, on_sample)
            except BaseException:
                process.kill()
                raise
            finally:
                self._process = None
        if answer is None:
            return {} if self.stopped else {"problem": _died(process.returncode)}
        return answer

    def stop(self) -> None:
        """End the running measurement and start no further one; returns at once."""
        self.stopped = True
        process = self._process
        if process is not None:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)


def _converse(
    process: subprocess.Popen[str],
    task: dict[str, Any],
    on_sample: Callable[[dict[str, Any]], None] | None,
) -> dict[str, Any] | None:
    """Send the task and return the process's last answer; None when it died without one."""
    if process.stdin is None or process.stdout is None:
        return None
    try:
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()  # and left open: its end would end the measurement
    except BrokenPipeError:
        with suppress(BrokenPipeError):
            process.stdin.close()
    answer: dict[str, Any] | None = None
    for line in process.stdout:
        said = json.loads(line)
        if "sample" in said:
            if on_sample is not None:
                on_sample(said["sample"])
        elif "found" in said:
            answer = said["found"]
        else:
            answer = {"problem": said["problem"]}
    process.wait()
    return answer


def _died(returncode: int) -> dict[str, Any]:
    """Return the problem of a process that ended without an answer."""
    remedy = "see the lines above for its reason; please report this"
    if returncode == -signal.SIGILL:
        remedy = "the runtime was built for a newer processor: install another version of it"
    elif returncode == -signal.SIGKILL:
        remedy = "the system may have run out of memory: see `dmesg`, and close other programs"
    ended = f"the measuring process ended {how_it_ended(returncode)}"
    return problem_of(InferenceError(ended, remedy=remedy))
