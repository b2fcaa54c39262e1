"""The CUDA thread, in which everything on the GPU is made, used and freed.

A CUDA context belongs to threads, and PyCUDA frees memory only in the thread whose context it came
from; elsewhere it leaks silently. So all work for the GPU is handed to this thread.
"""

from __future__ import annotations

import functools
import os
import threading
import traceback
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

from fer_agent.errors import InferenceError, UnavailableError

Job = Callable[[], None]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Gpu:
    """The GPU and driver that an engine depends on.

    Attributes:
        name: as the driver reports it, such as `Orin`.
        compute_capability: major and minor, such as `8.7`.
        cuda: version of CUDA that the driver speaks, such as `12.6`.
    """

    name: str
    compute_capability: str
    cuda: str


class CudaThread:
    """A thread with the first GPU's primary context and one stream, until `close`.

    The primary context is the one that TensorRT's own calls find.

    Raises:
        UnavailableError: no PyCUDA, no driver or no GPU.

    Attributes:
        gpu: the first GPU.
        stream: PyCUDA's stream; only for jobs of this thread.
    """

    gpu: Gpu
    stream: Any

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._closed = False
        started: Future[None] = Future()
        # A daemon, so that a program that forgets to close it ends all the same.
        self._thread = threading.Thread(target=self._run, args=(started,), name="cuda", daemon=True)
        self._thread.start()
        started.result()

    def call(self, job: Callable[[], T]) -> T:
        """Do a job there and wait; return its result or raise its error.

        Raises:
            InferenceError: the thread was closed.
        """
        if self._closed:
            raise InferenceError(
                "the GPU was given back already", remedy="this is a bug: please report it"
            )
        done: Future[T] = Future()

        def work() -> None:
            try:
                done.set_result(job())
            except BaseException as error:  # noqa: BLE001 - thread boundary: the caller gets it
                # Frames would carry references to the GPU's objects into the caller's thread.
                traceback.clear_frames(error.__traceback__)
                done.set_exception(error)

        self._jobs.put(work)
        return done.result()

    def post(self, job: Job) -> None:
        """Queue a job and return at once; after `close` it is not done."""
        self._jobs.put(job)

    def close(self) -> None:
        """Free the context and end, after all jobs so far; closing twice is harmless."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
            self._thread.join()

    def _run(self, started: Future[None]) -> None:
        try:
            context = self._open()
        except BaseException as error:  # noqa: BLE001 - thread boundary: the constructor raises it
            started.set_exception(error)
            return
        started.set_result(None)
        try:
            while (job := self._jobs.get()) is not None:
                job()
                del job  # and its references, before the next one comes
        finally:
            self.stream = None
            context.pop()

    def _open(self) -> Any:
        """Make the context of this thread and its stream."""
        # Kernels are loaded when they are first used: hundreds of megabytes less on a Jetson.
        os.environ.setdefault("CUDA_MODULE_LOADING", "LAZY")
        try:
            import pycuda.driver as cuda  # noqa: PLC0415  needs libraries that few machines have
        except ImportError as error:
            raise UnavailableError(
                f"PyCUDA cannot be loaded: {error}",
                remedy="install `fer-agent[jetson]`, and CUDA's libraries",
            ) from error
        try:
            cuda.init()
            device = cuda.Device(0)
            context = device.retain_primary_context()
            context.push()
        except cuda.Error as error:
            raise UnavailableError(
                f"CUDA finds no GPU to work with: {error}",
                remedy="check the driver, and that this user may open the GPU's device files",
            ) from error
        try:
            driver = cuda.get_driver_version()
            self.gpu = Gpu(
                name=device.name(),
                compute_capability=".".join(map(str, device.compute_capability())),
                cuda=f"{driver // 1000}.{driver % 1000 // 10}",
            )
            self.stream = cuda.Stream()
        except BaseException:
            context.pop()
            raise
        return context


@functools.cache
def cuda_thread() -> CudaThread:
    """Return this process's CUDA thread; it is made once and closed at exit.

    Raises:
        UnavailableError: as `CudaThread`.
    """
    thread = CudaThread()
    # Finalizers at exit run youngest first: sessions let go of the GPU before this ends it.
    weakref.finalize(thread, _close, thread._jobs, thread._thread)  # noqa: SLF001 - our own
    return thread


def _close(jobs: SimpleQueue[Job | None], thread: threading.Thread) -> None:
    jobs.put(None)
    thread.join()
