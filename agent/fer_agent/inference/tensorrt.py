"""TensorRT: an engine run through PyCUDA; satisfies `InferenceSession`.

Tensors are addressed by name, as in TensorRT 8.6 to 11. Everything on the GPU belongs to the CUDA
thread; callers pass arrays and get arrays back.
"""

from __future__ import annotations

import functools
import importlib.metadata
import logging
import math
import weakref
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_agent.errors import InferenceError
from fer_agent.inference.cuda import CudaThread

Arrays = Mapping[str, NDArray[np.generic]]

logger = logging.getLogger(__name__)

_REBUILD = "delete it to have it built again; if that does not help, set the runtime to onnx"


def version() -> tuple[int, ...]:
    """Return TensorRT's version, such as (10, 3, 0), without loading it where possible.

    Raises:
        ImportError: it is not installed, or its libraries are not.
    """
    try:
        text = importlib.metadata.version("tensorrt")
    except importlib.metadata.PackageNotFoundError:
        import tensorrt  # noqa: PLC0415  gigabytes of libraries

        text = str(tensorrt.__version__)
    return tuple(int(part) for part in text.split(".")[:3])


@functools.cache
def trt_logger() -> Any:
    """Return the process's only `ILogger`, which passes messages on to ours."""
    import tensorrt as trt  # noqa: PLC0415  gigabytes of libraries

    levels = {
        trt.ILogger.Severity.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.Severity.ERROR: logging.ERROR,
        trt.ILogger.Severity.WARNING: logging.DEBUG,  # about every cast, and about each start
        trt.ILogger.Severity.INFO: logging.DEBUG,
    }

    class Passing(trt.ILogger):  # type: ignore[misc]  # no types come with it
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last_error = ""

        def log(self, severity: Any, message: str) -> None:
            level = levels.get(severity)
            if level == logging.ERROR:
                self.last_error = message
            if level is not None:
                logger.log(level, "TensorRT: %s", message)

    return Passing()


class Tensor(NamedTuple):
    """An input or output of an engine: its name and element type."""

    name: str
    dtype: np.dtype[np.generic]


class TensorRtSession:
    """An engine that is ready to run; runs of one session may come from several threads.

    A batch larger than the engine's profile is run in parts.

    Args:
        plan: the serialized engine.
        title: its name in messages, such as its file.
        thread: the CUDA thread, in which it is freed with the last reference to the session.

    Raises:
        InferenceError: this TensorRT or GPU does not take the engine, or memory is short.
    """

    def __init__(self, plan: bytes, title: str, thread: CudaThread) -> None:
        self._title = title
        self._thread = thread
        self._engine = thread.call(lambda: _Engine(plan, title, thread.stream))
        self._most_rows = self._engine.most[0]
        self.close = weakref.finalize(self, _release, thread, self._engine)

    @property
    def input_shape(self) -> tuple[int | str | None, ...]:
        """The input's shape as the model declares it; None where dynamic."""
        return tuple(None if length < 0 else length for length in self._engine.shape)

    @property
    def input_dtype(self) -> np.dtype[np.generic]:
        """The input's element type."""
        return self._engine.input.dtype

    def run(self, tensor: NDArray[np.generic]) -> dict[str, NDArray[np.generic]]:
        """Run the network once.

        Args:
            tensor: of the input's dtype, and of a shape within the engine's profile but for the
                number of rows; not modified, not kept.

        Returns:
            Output arrays by the names in the model file, each freshly allocated.

        Raises:
            InferenceError: the input has another type or shape, or the GPU failed.
        """
        self._check(tensor)
        call, run = self._thread.call, self._engine.run
        parts = [call(functools.partial(run, rows)) for rows in self._parts(tensor)]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def bind(self, tensor: NDArray[np.generic], outputs: Arrays) -> Callable[[], None]:
        """Prepare runs that read one array and write others; see `vision.binding`.

        Raises:
            InferenceError: an output is none of the engine's. The returned run raises it when
                shapes do not fit the input, or the GPU failed.
        """
        self._check(tensor)
        want = {output.name for output in self._engine.outputs}
        if set(outputs) != want:
            raise self._failed(f"it puts out {sorted(want)}, not {sorted(outputs)}")
        if len(tensor) > self._most_rows:
            raise self._failed(f"at most {self._most_rows} rows can be bound, not {len(tensor)}")
        job = functools.partial(self._engine.run_into, tensor, outputs)
        # With `self`, because the engine is released with its session.
        return functools.partial(_run_bound, self, job)

    def _parts(self, tensor: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        most = self._most_rows
        return [tensor[row : row + most] for row in range(0, max(1, len(tensor)), most)]

    def _check(self, tensor: NDArray[np.generic]) -> None:
        """Raise an error for a tensor that the engine does not take."""
        engine = self._engine
        # The number of rows is open beyond the profile: `run` cuts it.
        fits = len(tensor.shape) == len(engine.least) and all(
            low <= have <= high
            for low, have, high in zip(
                engine.least[1:], tensor.shape[1:], engine.most[1:], strict=True
            )
        )
        if tensor.dtype != engine.input.dtype or not fits or not len(tensor):
            raise self._failed(
                f"it takes {engine.input.dtype.name} from {engine.least} to {engine.most}, "
                f"not {tensor.dtype.name} {tensor.shape}"
            )

    def _failed(self, why: str) -> InferenceError:
        return InferenceError(
            f"{self._title} cannot run this: {why}",
            remedy="check that the model is the one its manifest names; please report this",
        )


def _run_bound(session: TensorRtSession, job: Callable[[], None]) -> None:
    session._thread.call(job)  # noqa: SLF001 - our own


def _release(thread: CudaThread, engine: _Engine) -> None:
    thread.post(engine.release)


class _Engine:
    """The GPU's side of a session: made, used and released in the CUDA thread.

    One stream for all, so that nothing overtakes: input up, network, outputs down, wait.

    Attributes:
        input: the only one.
        outputs: in the engine's order.
        shape: of the input as the network declares it, -1 where open.
        least: smallest input of the profile.
        most: largest one.
    """

    def __init__(self, plan: bytes, title: str, stream: Any) -> None:
        import tensorrt as trt  # noqa: PLC0415  gigabytes of libraries

        self._title = title
        self._stream = stream
        self._buffers: dict[str, _Buffer] = {}
        self._context: Any = None
        self._runtime: Any = trt.Runtime(trt_logger())
        try:
            engine = self._runtime.deserialize_cuda_engine(plan)
            self._engine: Any = self._made(engine, "it does not take the engine")
            self._read_tensors(trt)
            context = self._engine.create_execution_context()
            self._context = self._made(context, "there is not enough memory for it")
            self._allocate()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Free everything, dependent objects first."""
        self._buffers.clear()
        self._context = None
        self._engine = None
        self._runtime = None
        self._stream = None

    def run(self, tensor: NDArray[np.generic]) -> dict[str, NDArray[np.generic]]:
        """Run on a tensor and return fresh arrays."""
        shapes = self._launch(tensor)
        return {
            output.name: self._buffers[output.name].view(output.dtype, shapes[output.name]).copy()
            for output in self.outputs
        }

    def run_into(self, tensor: NDArray[np.generic], outputs: Arrays) -> None:
        """Run on a tensor and write the results into arrays."""
        shapes = self._launch(tensor)
        for output in self.outputs:
            into, shape = outputs[output.name], shapes[output.name]
            if into.shape != shape:
                raise InferenceError(
                    f"output {output.name} of {self._title} is {shape}, not {into.shape}",
                    remedy="check that the model is the one its manifest names; please report this",
                )
            np.copyto(
                into, self._buffers[output.name].view(output.dtype, shape), casting="same_kind"
            )

    def _launch(self, tensor: NDArray[np.generic]) -> dict[str, tuple[int, ...]]:
        """Bring the input up, run, bring the outputs down, wait; return the outputs' shapes."""
        import pycuda.driver as cuda  # noqa: PLC0415  the CUDA thread has it

        name = self.input.name
        try:
            if not self._context.set_input_shape(name, tensor.shape):
                raise self._refused(f"it does not take an input of {tensor.shape}")
            source = self._buffers[name]
            np.copyto(source.view(self.input.dtype, tensor.shape), tensor)
            cuda.memcpy_htod_async(source.device, source.host[: tensor.nbytes], self._stream)
            if not self._context.execute_async_v3(self._stream.handle):
                raise self._refused("it failed while running")
            shapes = {}
            for output in self.outputs:
                shape = shapes[output.name] = tuple(self._context.get_tensor_shape(output.name))
                size = math.prod(shape) * output.dtype.itemsize
                buffer = self._buffers[output.name]
                cuda.memcpy_dtoh_async(buffer.host[:size], buffer.device, self._stream)
            self._stream.synchronize()
        except cuda.Error as error:
            raise self._refused(str(error)) from error
        return shapes

    def _read_tensors(self, trt: Any) -> None:
        engine = self._engine
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        tensors = {name: Tensor(name, _dtype(trt, engine.get_tensor_dtype(name))) for name in names}
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        if len(inputs) != 1:
            raise self._refused(f"it has {len(inputs)} inputs, the agent feeds exactly one")
        self.input = tensors.pop(inputs[0])
        self.outputs = tuple(tensors.values())
        self.shape = tuple(engine.get_tensor_shape(self.input.name))
        least, _, most = engine.get_tensor_profile_shape(self.input.name, 0)
        self.least, self.most = tuple(least), tuple(most)

    def _allocate(self) -> None:
        """Make buffers for the largest input; their addresses hold for every smaller one."""
        import pycuda.driver as cuda  # noqa: PLC0415  the CUDA thread has it

        if not self._context.set_input_shape(self.input.name, self.most):
            raise self._refused(f"it does not take an input of {self.most}")
        try:
            for tensor in (self.input, *self.outputs):
                shape = tuple(self._context.get_tensor_shape(tensor.name))
                buffer = _Buffer(math.prod(shape) * tensor.dtype.itemsize)
                self._buffers[tensor.name] = buffer
                self._context.set_tensor_address(tensor.name, int(buffer.device))
        except cuda.Error as error:
            raise self._refused(str(error)) from error

    def _made(self, made: Any, why_not: str) -> Any:
        """Return an object that TensorRT made; raise an error for None."""
        if made is None:
            raise self._refused(why_not)
        return made

    def _refused(self, why: str) -> InferenceError:
        said = trt_logger().last_error
        return InferenceError(
            f"TensorRT cannot use {self._title}: {why}{f' ({said})' if said else ''}",
            remedy=_REBUILD,
        )


class _Buffer:
    """Memory of the GPU, and pinned memory for its copies."""

    def __init__(self, size_bytes: int) -> None:
        import pycuda.driver as cuda  # noqa: PLC0415  the CUDA thread has it

        self.host: NDArray[np.uint8] = cuda.pagelocked_empty(size_bytes, np.uint8)
        self.device = cuda.mem_alloc(size_bytes)

    def view(self, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> NDArray[np.generic]:
        """Return the first bytes of the pinned memory as an array."""
        size_bytes = math.prod(shape) * dtype.itemsize
        return self.host[:size_bytes].view(dtype).reshape(shape)


def _dtype(trt: Any, kind: Any) -> np.dtype[np.generic]:
    """Return numpy's type; `tensorrt.nptype` of 8.6 asks numpy for names that are gone."""
    names = {
        trt.DataType.FLOAT: "float32",
        trt.DataType.HALF: "float16",
        trt.DataType.INT8: "int8",
        trt.DataType.INT32: "int32",
        trt.DataType.UINT8: "uint8",
    }
    if kind not in names:
        raise InferenceError(
            f"TensorRT's {kind} is no array of numbers",
            remedy="use a network that takes and gives arrays of numbers",
        )
    return np.dtype(names[kind])
