"""Stands in for TensorRT where there is none; ONNX Runtime computes what its engines are asked for.

The environment's `FAKE_TENSORRT_VERSION` says which version it behaves as, 8.6 to 11; names that a
version does not have are not there. `FAKE_TENSORRT_FAULT` lets something go wrong: `no-build`,
`crash`, `hang` (until the progress monitor ends it), `no-deserialize`, `no-context`, `no-execute`,
`wrong` (outputs are off).

It enforces the API's order and ownership: a logger that was initialised, a network with a batch
axis, types as the network's flags want them, a profile for open axes, input shapes within it,
every tensor's address before a run; engines and contexts stay in the thread that made them. As the
real one it answers with None or False, and says why through the logger.
"""

from __future__ import annotations

import base64
import enum
import json
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pycuda.driver as cuda

if TYPE_CHECKING:
    from collections.abc import Sequence

__version__ = os.environ.get("FAKE_TENSORRT_VERSION", "10.3.0")
_VERSION = tuple(int(part) for part in __version__.split("."))
_MAGIC = b"ftrt"


def _fault() -> str:
    return os.environ.get("FAKE_TENSORRT_FAULT", "")


class ILogger:
    class Severity(enum.Enum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    def __init__(self) -> None:
        self._initialised = True

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


def _checked(logger: ILogger) -> ILogger:
    if not getattr(logger, "_initialised", False):
        raise TypeError("ILogger.__init__() must be called when overriding __init__")
    return logger


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5
    INT64 = 8


_DTYPES = {
    "tensor(float)": (DataType.FLOAT, np.float32),
    "tensor(float16)": (DataType.HALF, np.float16),
    "tensor(uint8)": (DataType.UINT8, np.uint8),
    "tensor(int64)": (DataType.INT64, np.int64),
    "tensor(int32)": (DataType.INT32, np.int32),
}


class TensorIOMode(enum.Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class MemoryPoolType(enum.Enum):
    WORKSPACE = 0


_builder_flags = {"TF32": 7, **({"FP16": 0} if _VERSION < (11,) else {})}
BuilderFlag: Any = enum.Enum("BuilderFlag", _builder_flags)

_network_flags: dict[str, int] = {}
if _VERSION < (11,):
    _network_flags["EXPLICIT_BATCH"] = 0
if _VERSION >= (10,):
    _network_flags["STRONGLY_TYPED"] = 1
NetworkDefinitionCreationFlag: Any = enum.IntEnum("NetworkDefinitionCreationFlag", _network_flags)


class _ProgressMonitor:
    def __init__(self) -> None:
        self._initialised = True


if _VERSION >= (10,):
    IProgressMonitor = _ProgressMonitor


class IHostMemory(bytes):
    __slots__ = ()


class ITensor:
    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self.name = name
        self.shape = shape


class INetworkDefinition:
    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.model = b""
        self.inputs: list[ITensor] = []

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    def get_input(self, index: int) -> ITensor:
        return self.inputs[index]


class ParserError:
    def __init__(self, text: str) -> None:
        self._text = text

    def desc(self) -> str:
        return self._text


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network = network
        self._errors: list[ParserError] = []
        _checked(logger)

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def parse(self, model: bytes, path: str | None = None) -> bool:
        if _VERSION < (10,) and not self._network.flags & 1:
            self._errors.append(ParserError("the network must have an explicit batch axis"))
            return False
        try:
            session = _session(model)
        except Exception as error:  # noqa: BLE001 - whatever it says
            self._errors.append(ParserError(f"failed to parse: {error}"))
            return False
        self._network.model = bytes(model)
        self._network.inputs = [
            ITensor(one.name, _open_shape(one.shape)) for one in session.get_inputs()
        ]
        return True


class IOptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[list[int]]] = {}

    def set_shape(
        self,
        input: str,  # noqa: A002  the vendor's names
        min: Sequence[int],  # noqa: A002
        opt: Sequence[int],
        max: Sequence[int],  # noqa: A002
    ) -> None:
        for low, middle, high in zip(min, opt, max, strict=True):
            if not 0 < low <= middle <= high:
                raise ValueError(f"shapes of {input} are out of order")
        self.shapes[input] = [list(min), list(opt), list(max)]


class IBuilderConfig:
    def __init__(self) -> None:
        self.flags = {BuilderFlag.TF32}
        self.profiles: list[IOptimizationProfile] = []
        self.progress_monitor: Any = None

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        if not isinstance(pool, MemoryPoolType) or pool_size <= 0:
            raise TypeError("set_memory_pool_limit(): incompatible arguments")

    def set_flag(self, flag: Any) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: Any) -> None:
        self.flags.discard(flag)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1


class Builder:
    def __init__(self, logger: ILogger) -> None:
        self._logger = _checked(logger)

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        return INetworkDefinition(flags)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> IHostMemory | None:
        problem = self._problem(network, config)
        if problem or not self._work(config):
            self._logger.log(ILogger.Severity.ERROR, problem or "the build was cancelled")
            return None
        shapes = config.profiles[0].shapes
        half = _VERSION < (11,) and BuilderFlag.FP16 in config.flags
        content = {
            "tensorrt": __version__,
            "gpu": cuda.Device(0).name() if cuda.DriverState.initialised else "",
            "shapes": shapes,
            "half": half,
            "wrong": _fault() == "wrong",
            "model": base64.b64encode(network.model).decode(),
        }
        return IHostMemory(_MAGIC + json.dumps(content).encode())

    def _problem(self, network: INetworkDefinition, config: IBuilderConfig) -> str:
        typed = _VERSION >= (11,) or (_VERSION >= (10,) and network.flags & 2)
        half = _VERSION < (11,) and BuilderFlag.FP16 in config.flags
        if typed and half:
            return "precision flags are not allowed with strongly typed networks"
        if not typed and not half and _has_half(network.model):
            return "the network has FP16 weights but the FP16 flag is not set"
        for one in network.inputs:
            told = [profile.shapes.get(one.name) for profile in config.profiles]
            if -1 in one.shape and not any(told):
                return f"{one.name} has open axes but there is no optimization profile"
        return "out of memory" if _fault() == "no-build" else ""

    def _work(self, config: IBuilderConfig) -> bool:
        """Take some steps; returns whether the monitor let them be taken."""
        if _fault() == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        monitor = config.progress_monitor
        if monitor is None:
            return True
        if not getattr(monitor, "_initialised", False):
            raise TypeError("IProgressMonitor.__init__() must be called")
        monitor.phase_start("Building Engine", None, 4)
        monitor.phase_start("Tactics", "Building Engine", 2)
        going = True
        for step in range(4):
            monitor.step_complete("Tactics", step % 2)
            going = going and monitor.step_complete("Building Engine", step)
            while _fault() == "hang" and going:
                time.sleep(0.05)
                going = monitor.step_complete("Building Engine", step)
        monitor.phase_finish("Tactics")
        monitor.phase_finish("Building Engine")
        return bool(going)


class _InOneThread:
    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def _use(self) -> None:
        if threading.get_ident() != self._thread:
            cuda.violate(f"{type(self).__name__} was used in another thread")

    def __del__(self) -> None:
        if threading.get_ident() != self._thread:
            cuda.violate(f"{type(self).__name__} was freed in another thread")


class Runtime(_InOneThread):
    def __init__(self, logger: ILogger) -> None:
        super().__init__()
        self._logger = _checked(logger)

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        self._use()
        if not serialized_engine.startswith(_MAGIC) or _fault() == "no-deserialize":
            self._logger.log(ILogger.Severity.ERROR, "magic tag does not match")
            return None
        content = json.loads(serialized_engine[len(_MAGIC) :])
        if content["tensorrt"] != __version__:
            self._logger.log(ILogger.Severity.ERROR, "the engine plan is of another version")
            return None
        return ICudaEngine(content, self._logger)


class ICudaEngine(_InOneThread):
    def __init__(self, content: dict[str, Any], logger: ILogger) -> None:
        super().__init__()
        self.logger = logger
        self.session = _session(base64.b64decode(content["model"]))
        self.content = content
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        self.tensors = {one.name: one for one in (*inputs, *outputs)}
        self._inputs = {one.name for one in inputs}

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return _DTYPES[self.tensors[name].type][0]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return _open_shape(self.tensors[name].shape)

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        assert profile_index == 0
        return [tuple(shape) for shape in self.content["shapes"][name]]

    def create_execution_context(self) -> IExecutionContext | None:
        self._use()
        if _fault() == "no-context":
            self.logger.log(ILogger.Severity.ERROR, "out of memory")
            return None
        return IExecutionContext(self)


class IExecutionContext(_InOneThread):
    def __init__(self, engine: ICudaEngine) -> None:
        super().__init__()
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._inferred: dict[tuple[int, ...], dict[str, tuple[int, ...]]] = {}

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        self._use()
        least, _, most = self._engine.get_tensor_profile_shape(name, 0)
        if len(shape) != len(least) or not all(
            low <= have <= high for low, have, high in zip(least, shape, most, strict=True)
        ):
            return self._fail(f"the shape of {name} is outside of the profile")
        self._shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._use()
        self._addresses[name] = int(memory)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        self._use()
        if name in self._shapes:
            return self._shapes[name]
        if not self._shapes:
            return self._engine.get_tensor_shape(name)
        (given,) = self._shapes.items()
        if given[1] not in self._inferred:
            kind = self._engine.tensors[given[0]].type
            blank = np.zeros(given[1], _DTYPES[kind][1])
            self._inferred[given[1]] = {
                key: array.shape for key, array in self._compute(given[0], blank).items()
            }
        return self._inferred[given[1]][name]

    def execute_async_v3(self, stream_handle: int) -> bool:
        self._use()
        names = set(self._engine.tensors)
        if _fault() == "no-execute":
            return self._fail("an illegal memory access was encountered")
        if missing := names - set(self._addresses):
            return self._fail(f"no address is set for {sorted(missing)}")
        if not self._shapes:
            return self._fail("not all input shapes are set")
        ((name, shape),) = self._shapes.items()
        dtype = np.dtype(_DTYPES[self._engine.tensors[name].type][1])
        addresses = dict(self._addresses)

        def work() -> None:
            size = int(np.prod(shape)) * dtype.itemsize
            content = bytes(cuda.memory_at(addresses[name]).content[:size])
            results = self._compute(name, np.frombuffer(content, dtype).reshape(shape))
            for key, array in results.items():
                target = cuda.memory_at(addresses[key]).content
                told = np.ascontiguousarray(array).tobytes()
                assert len(told) <= len(target), f"{key} does not fit its memory"
                target[: len(told)] = told

        cuda.stream_of(stream_handle).enqueue(work)
        return True

    def _compute(self, name: str, tensor: np.ndarray) -> dict[str, np.ndarray]:
        session, content = self._engine.session, self._engine.content
        keys = [one.name for one in session.get_outputs()]
        arrays = session.run(keys, {name: tensor})
        if content["half"]:
            arrays = [array.astype(np.float16).astype(array.dtype) for array in arrays]
        if content["wrong"]:
            arrays = [array[..., ::-1] + 1 for array in arrays]
        return dict(zip(keys, arrays, strict=True))

    def _fail(self, why: str) -> bool:
        self._engine.logger.log(ILogger.Severity.ERROR, why)
        return False


def _has_half(model: bytes) -> bool:
    import onnx

    weights = onnx.load_from_string(model).graph.initializer
    return any(one.data_type == onnx.TensorProto.FLOAT16 for one in weights)


def _session(model: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _open_shape(shape: Sequence[int | str | None]) -> tuple[int, ...]:
    return tuple(length if isinstance(length, int) else -1 for length in shape)
