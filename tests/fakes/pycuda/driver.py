"""Stands in for `pycuda.driver`, as PyCUDA 2024 to 2026 behaves, with the host's memory as the GPU.

It enforces what the real one asks for or punishes without a word:

- `init` before anything, and a context that is current in the calling thread;
- whatever was made under a context is used and freed in that context's thread (elsewhere the real
  one leaks it silently), and no context is left on a thread's stack (the real one aborts);
- asynchronous copies go through page-locked memory and happen when the stream is synchronized.

What breaks a rule without raising is a line in `violations` and in the file that the environment's
`FAKE_CUDA_VIOLATIONS` names. `FAKE_CUDA_GPU` names the GPU; empty means that there is none.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

violations: list[str] = []
live: set[str] = set()
"""What was made and not freed yet, each as its kind and number."""

_numbers = itertools.count(1)
_memory: weakref.WeakValueDictionary[int, DeviceAllocation] = weakref.WeakValueDictionary()
_streams: weakref.WeakValueDictionary[int, Stream] = weakref.WeakValueDictionary()


class Error(Exception):
    pass


class LogicError(Error):
    pass


class DriverState:
    """The state of the process."""

    initialised = False


class _Stack:
    """A thread's stack of contexts, which has to be empty when the thread ends."""

    def __init__(self) -> None:
        self.contexts: list[Context] = []

    def __del__(self) -> None:
        if self.contexts:
            violate("the context stack was not empty when its thread ended")


class _Local(threading.local):
    def __init__(self) -> None:
        self.stack = _Stack()


local = _Local()


def violate(what: str) -> None:
    violations.append(what)
    if path := os.environ.get("FAKE_CUDA_VIOLATIONS"):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{what}\n".encode())
        os.close(descriptor)


def init(flags: int = 0) -> None:
    if not _gpu():
        raise LogicError("cuInit failed: no CUDA-capable device is detected")
    DriverState.initialised = True


def get_driver_version() -> int:
    return 12060


def _gpu() -> str:
    return os.environ.get("FAKE_CUDA_GPU", "Orin")


class Device:
    def __init__(self, number: int) -> None:
        if not DriverState.initialised:
            raise LogicError("cuDeviceGet failed: initialization error")
        if number:
            raise LogicError("cuDeviceGet failed: invalid device ordinal")

    def name(self) -> str:
        return _gpu()

    def compute_capability(self) -> tuple[int, int]:
        return (8, 7)

    def retain_primary_context(self) -> Context:
        """Return the context without making it current."""
        return Context()


class Context:
    def __init__(self) -> None:
        self.thread = threading.get_ident()

    def push(self) -> None:
        if threading.get_ident() != self.thread:
            raise LogicError("cannot activate out-of-thread context")
        local.stack.contexts.append(self)

    @staticmethod
    def pop() -> None:
        if not local.stack.contexts:
            raise LogicError("cannot pop non-current context")
        local.stack.contexts.pop()


def current() -> Context:
    if not local.stack.contexts:
        raise LogicError("no currently active context?")
    return local.stack.contexts[-1]


class Owned:
    """What belongs to the context that was current when it was made."""

    def __init__(self) -> None:
        self.context = current()
        self.tag = f"{type(self).__name__} {next(_numbers)}"
        live.add(self.tag)

    def use(self) -> None:
        if current() is not self.context:
            raise LogicError(f"{self.tag} belongs to another context")

    def __del__(self) -> None:
        if hasattr(self, "tag"):  # else it was never made
            live.discard(self.tag)
            if not local.stack.contexts or local.stack.contexts[-1] is not self.context:
                violate(f"{self.tag} was freed outside of its context's thread")


class Stream(Owned):
    def __init__(self, flags: int = 0) -> None:
        super().__init__()
        self.handle = next(_numbers)
        self._work: list[Callable[[], None]] = []
        _streams[self.handle] = self

    def enqueue(self, work: Callable[[], None]) -> None:
        self.use()
        self._work.append(work)

    def synchronize(self) -> None:
        self.use()
        work, self._work = self._work, []
        for each in work:
            each()


class DeviceAllocation(Owned):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.content = bytearray(size)
        self._address = 0x10_0000 * next(_numbers)
        _memory[self._address] = self

    def __int__(self) -> int:
        return self._address


class PagelockedHostAllocation(bytearray):
    """Not `Owned`, because numpy wants bytes; freed under the same rule."""

    def __init__(self, size: int) -> None:
        self.context = current()
        self.tag = f"PagelockedHostAllocation {next(_numbers)}"
        live.add(self.tag)
        super().__init__(size)

    def __del__(self) -> None:
        Owned.__del__(self)  # type: ignore[arg-type]  # the same attributes


def mem_alloc(size: int) -> DeviceAllocation:
    if size <= 0:
        raise LogicError("cuMemAlloc failed: invalid argument")
    return DeviceAllocation(size)


def pagelocked_empty(shape: int, dtype: Any, order: str = "C", mem_flags: int = 0) -> Any:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(PagelockedHostAllocation(size), dtype).reshape(shape)


def _pagelocked(array: Any) -> memoryview:
    """Return the bytes of an array in page-locked memory."""
    owner: Any = array
    while isinstance(owner, np.ndarray | memoryview):
        owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
    if not isinstance(owner, PagelockedHostAllocation):
        raise LogicError("asynchronous copies need page-locked memory")
    if not array.flags.c_contiguous:
        raise LogicError("ndarray is not contiguous")
    return memoryview(array.reshape(-1).view(np.uint8))


def memcpy_htod_async(dest: DeviceAllocation, src: Any, stream: Stream) -> None:
    source = _pagelocked(src)
    dest.use()
    if len(source) > len(dest.content):
        raise LogicError("cuMemcpyHtoDAsync failed: invalid argument")

    def copy() -> None:
        dest.content[: len(source)] = source

    stream.enqueue(copy)


def memcpy_dtoh_async(dest: Any, src: DeviceAllocation, stream: Stream) -> None:
    target = _pagelocked(dest)
    src.use()
    if len(target) > len(src.content):
        raise LogicError("cuMemcpyDtoHAsync failed: invalid argument")

    def copy() -> None:
        target[:] = src.content[: len(target)]

    stream.enqueue(copy)


def memory_at(address: int) -> DeviceAllocation:
    """Only of the fake: return what lies at an address of the GPU."""
    return _memory[address]


def stream_of(handle: int) -> Stream:
    """Only of the fake: return the stream of a handle."""
    return _streams[handle]
