"""ONNX Runtime on the CPU: networks with one input, on a fixed number of threads."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_agent.errors import InferenceError, ModelContractError, ModelFileError

logger = logging.getLogger(__name__)

_PROVIDERS = ["CPUExecutionProvider"]
_LOG_FATAL_ONLY = 4  # every error comes back as an exception anyway

WEIGHTS_NAME = "weights.bin"
"""File beside a network written as `write_ready`; missing when all of its weights are small."""

_LEAST_OUTSIDE_BYTES = "1024"


class OnnxSession:
    """A loaded ONNX file; satisfies `InferenceSession`.

    Threads do not spin while they wait, which on a small board would heat a core for nothing.
    Memory patterns are off and the arena is on: with YuNet at two input sizes that is 2.3 MB less
    and no slower than both on; without the arena a run takes 1.7 times as long (1.32, x86-64). All
    sessions share one arena that grows by what is asked for: 1.6 MB less than one of powers of two
    for each, and no slower.

    Args:
        path: the ONNX file.
        threads: threads inside one run; runs of one session may come from several threads.
        ready: a file that was written from this one as `write_ready`, loaded in its place.
        write_ready: path of the optimised network that is written for this processor, its weights
            in `WEIGHTS_NAME` beside it. All memory of such a session goes with it.

    Raises:
        ModelFileError: the file is missing, truncated or no ONNX file the runtime can load.
        ModelContractError: the network has not exactly one input.
        InferenceError: the runtime fell back to other providers than asked for.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int = 1,
        ready: Path | None = None,
        write_ready: Path | None = None,
    ) -> None:
        options = _options(threads, optimised=ready is not None, write_ready=write_ready)
        self._session = _load(ready or path, options)
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise ModelContractError(
                f"{path} has {len(inputs)} inputs, the agent feeds exactly one",
                remedy="use a model made for fer-agent, or export it again with `fer-train export`",
            )
        self._path = path
        self._input_name = str(inputs[0].name)
        self._input_shape = tuple(inputs[0].shape)
        self._input_type = str(inputs[0].type)
        self._output_names = [str(output.name) for output in self._session.get_outputs()]
        logger.info("loaded %s on ONNX Runtime, %d thread(s)", path, threads)

    @property
    def input_shape(self) -> tuple[int | str | None, ...]:
        """The input's shape as the model declares it; names or None where dynamic."""
        return self._input_shape

    @property
    def input_dtype(self) -> np.dtype[np.generic]:
        """The input's element type.

        Raises:
            ModelContractError: numpy has no such type.
        """
        element = self._input_type.removeprefix("tensor(").removesuffix(")")
        names = {"float": "float32", "double": "float64"}
        try:
            return np.dtype(names.get(element, element))
        except TypeError as error:
            raise ModelContractError(
                f"{self._path} takes {self._input_type}, which is no array of numbers",
                remedy="use a network that takes one array of numbers",
            ) from error

    def run(self, tensor: NDArray[np.generic]) -> dict[str, NDArray[np.generic]]:
        """Run the network once.

        Args:
            tensor: of the input's dtype and shape; not modified, not kept.

        Returns:
            Output arrays by the names in the model file, each freshly allocated.

        Raises:
            InferenceError: the runtime refused the input or failed while running.
        """
        try:
            arrays = self._session.run(self._output_names, {self._input_name: tensor})
        # onnxruntime's exceptions derive straight from Exception or RuntimeError, and their
        # classes live in a private module that moved between versions.
        except Exception as error:
            raise self._failed(tensor, error) from error
        return dict(zip(self._output_names, arrays, strict=True))

    def bind(
        self, tensor: NDArray[np.generic], outputs: Mapping[str, NDArray[np.generic]]
    ) -> Callable[[], None]:
        """Prepare runs that read one array and write others; see `vision.binding`.

        Compared with `run`, no checks, no dictionary and no fresh arrays: 60 to 130 us less for a
        call of YuNet or the classifier (x86-64, 2.4 GHz, cold caches).

        Raises:
            InferenceError: an array is not contiguous or has no such output. So does the run
                returned: the runtime refused the shapes or failed while running.
        """
        binding = self._session.io_binding()
        try:
            binding.bind_input(
                self._input_name, "cpu", 0, tensor.dtype, tensor.shape, _address(tensor)
            )
            for name, output in outputs.items():
                binding.bind_output(name, "cpu", 0, output.dtype, output.shape, _address(output))
        except Exception as error:  # as in run()
            raise self._failed(tensor, error) from error
        session_run = self._session.run_with_iobinding
        held = tensor, *outputs.values()  # the binding knows their addresses only

        def run() -> None:
            try:
                session_run(binding)
            except Exception as error:  # as in run()
                raise self._failed(held[0], error) from error

        return run

    def _failed(self, tensor: NDArray[np.generic], error: Exception) -> InferenceError:
        return InferenceError(
            f"{self._path} failed on {tensor.dtype.name} {tensor.shape}: {_first_line(error)}",
            remedy="check that the model is the one its manifest names; please report this",
        )


def _options(threads: int, *, optimised: bool, write_ready: Path | None) -> Any:
    import onnxruntime  # noqa: PLC0415  a heavy import

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_mem_pattern = False
    options.log_severity_level = _LOG_FATAL_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Without it INT8 products saturate on an x86-64 that has no VNNI: the shipped model's logits
    # were off by 0.48 there, and are those of an arm64 board with it. 8 % slower.
    options.add_session_config_entry("session.x64quantprecision", "1")
    if optimised:
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
    if write_ready is None:
        options.add_session_config_entry("session.use_env_allocators", "1")
        _share_an_arena()
    else:
        options.optimized_model_filepath = str(write_ready)
        outside = "session.optimized_model_external_initializers_"
        options.add_session_config_entry(f"{outside}file_name", WEIGHTS_NAME)
        options.add_session_config_entry(f"{outside}min_size_in_bytes", _LEAST_OUTSIDE_BYTES)
    return options


def _load(path: Path, options: Any) -> Any:
    import onnxruntime  # noqa: PLC0415  as above

    if not path.is_file():
        raise ModelFileError(f"no model file at {path}", remedy="reinstall the model")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=_PROVIDERS)
    except Exception as error:  # as in run()
        raise ModelFileError(
            f"{path} is not a model ONNX Runtime can load: {_first_line(error)}",
            remedy="the file is damaged or too new: fetch it again, or upgrade onnxruntime",
        ) from error
    providers = session.get_providers()
    if providers != _PROVIDERS:
        raise InferenceError(
            f"ONNX Runtime runs {path} on {providers}, asked for {_PROVIDERS}",
            remedy="reinstall the plain onnxruntime package",
        )
    return session


@functools.cache
def _share_an_arena() -> None:
    """Give the process one arena for all sessions; it lasts as long as the runtime does."""
    import onnxruntime  # noqa: PLC0415  as above

    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    unlimited, as_asked_for, default = 0, 1, -1
    arena = onnxruntime.OrtArenaCfg(unlimited, as_asked_for, default, default)
    onnxruntime.create_and_register_allocator(memory, arena)


def _address(array: NDArray[np.generic]) -> int:
    if not array.flags.c_contiguous:
        raise ValueError("only contiguous arrays can be bound")
    return array.ctypes.data


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
