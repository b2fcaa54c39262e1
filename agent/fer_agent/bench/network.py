"""One network alone: load it, feed it, time its bare pass."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_agent.bench.protocol import BATCH, Protocol, StopFlag, measure, memory, summary
from fer_agent.errors import InferenceError, ModelContractError
from fer_agent.runtime import available

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_SEED = 0


def measure_network(task: dict[str, Any], stop: StopFlag) -> dict[str, Any]:
    """Measure a network as a task says.

    Args:
        task: `path`, `runtime`, `threads`, `warmup`, `runs`, and `shape`, the input's, or None for
            the model's own with one input at a time.
        stop: ends the measurement early.

    Returns:
        Fields of a `NetworkResult`.

    Raises:
        ModelError: the file is no network that this runtime can load and feed.
        UnavailableError: the runtime is not here.
    """
    path = Path(task["path"])
    started_ns = time.perf_counter_ns()
    session = available.open_session(task["runtime"], path, task["threads"])
    loaded_ns = time.perf_counter_ns()
    tensor = make_input(path, session.input_dtype, task["shape"] or session.input_shape)
    began_ns = time.perf_counter_ns()
    try:
        session.run(tensor)
    except InferenceError as error:
        raise ModelContractError(
            f"{path.name} does not take {tensor.dtype.name} {list(tensor.shape)}: {error}",
            remedy="name the shape it takes with --input-shape, such as 1,3,224,224",
        ) from error
    first_ns = time.perf_counter_ns()
    durations_ns = measure(
        lambda: session.run(tensor), Protocol(task["warmup"], task["runs"]), stop
    )
    found = summary(durations_ns)
    return {
        "input": f"{tensor.dtype.name} {list(tensor.shape)}",
        "load_ms": round((loaded_ns - started_ns) / 1e6, 3),
        "first_ms": round((first_ns - began_ns) / 1e6, 3),
        "latency_ms": found,
        "fps": None if found is None else round(1000 / max(found["mean"], 1e-6), 2),
        "memory": memory(),
    }


def make_input(
    path: Path, dtype: np.dtype[np.generic], shape: Sequence[int | str | None]
) -> NDArray[np.generic]:
    """Make one input of noise, the same each time; an open first axis is the batch.

    Raises:
        ModelContractError: another axis is open, and nobody said how long it is.
    """
    lengths = [BATCH if axis == 0 and not isinstance(n, int) else n for axis, n in enumerate(shape)]
    fixed = [length for length in lengths if isinstance(length, int) and length > 0]
    if len(fixed) < len(lengths):
        raise ModelContractError(
            f"{path.name} takes {list(shape)}, whose size is left open",
            remedy="name the shape to measure with --input-shape, such as 1,3,224,224",
        )
    noise = np.random.default_rng(_SEED).integers(0, 256, fixed)
    if np.issubdtype(dtype, np.integer) and dtype.itemsize == 1:
        return noise.astype(np.uint8).view(dtype)
    return noise.astype(dtype)
