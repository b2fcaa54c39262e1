"""The reader of raw pictures that a child process writes to a pipe."""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

_PIPE_BYTES = 1 << 20
"""The kernel's usual limit for a pipe of ours: a picture then takes one or two reads."""

_KEPT_BYTES = 4096
_END_S = 1.0


class ChildEndedError(Exception):
    """The end of a child's output.

    Attributes:
        errors: the last lines it wrote to standard output and error.
    """

    def __init__(self, errors: str) -> None:
        super().__init__(errors)
        self.errors = errors


class PictureChild:
    """A program whose pictures of a fixed size are read; for one thread.

    Args:
        command: makes program and arguments, given the file descriptor to write pictures to; the
            standard output will not do, as NVIDIA's Argus logs there.
        picture_bytes: size of each picture.

    Raises:
        OSError: the program cannot be started.
    """

    def __init__(self, command: Callable[[int], Sequence[str]], picture_bytes: int) -> None:
        self._picture_bytes = picture_bytes
        self._picture = np.empty(picture_bytes, np.uint8)
        self._filled = 0
        self._said = b""
        self._output, theirs = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603  the command is built by its caller
                list(command(theirs)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs,),
                start_new_session=True,  # Ctrl-C does not reach it, and all of it can be killed
            )
        except OSError:
            os.close(self._output)
            raise
        finally:
            os.close(theirs)
        assert self._process.stdout is not None  # noqa: S101  set by PIPE above
        self._said_pipe = self._process.stdout
        with contextlib.suppress(OSError):  # beyond the user's limit the pipe stays smaller
            fcntl.fcntl(self._output, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._selector = selectors.DefaultSelector()
        for pipe in (self._output, self._said_pipe.fileno()):
            os.set_blocking(pipe, False)
            self._selector.register(pipe, selectors.EVENT_READ)

    def read(self, timeout_s: float) -> NDArray[np.uint8]:
        """Wait for the next whole picture.

        Returns:
            uint8 (picture_bytes,), a new array.

        Raises:
            TimeoutError: it is not whole yet; its part is kept for the next call.
            ChildEndedError: the child closed its output.
        """
        until_s = time.monotonic() + timeout_s
        while self._filled < self._picture_bytes:
            ready = self._selector.select(max(0.0, until_s - time.monotonic()))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                if key.fd == self._output:
                    self._read_output()
                else:
                    self._read_messages()
        picture, self._picture = self._picture, np.empty(self._picture_bytes, np.uint8)
        self._filled = 0
        return picture

    def close(self) -> None:
        """End the child and its own children: by SIGTERM, after a second by SIGKILL."""
        self._selector.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
                break
        self._said_pipe.close()
        os.close(self._output)

    def _read_output(self) -> None:
        count = os.readv(self._output, [memoryview(self._picture.data)[self._filled :]])
        if count == 0:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
            with contextlib.suppress(BlockingIOError):
                self._read_messages()
            raise ChildEndedError(self._said.decode("utf-8", "replace").strip())
        self._filled += count

    def _read_messages(self) -> None:
        """Keep the child's last messages, so that their pipe never fills up."""
        data = os.read(self._said_pipe.fileno(), _KEPT_BYTES)
        if not data:
            with contextlib.suppress(KeyError):  # unregistered before
                self._selector.unregister(self._said_pipe.fileno())
        self._said = (self._said + data)[-_KEPT_BYTES:]
