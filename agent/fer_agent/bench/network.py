"""The measurement of one network alone: its loading, its first pass, its passes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from fer_agent.bench.protocol import Protocol, StopFlag, measure, summary
from fer_agent.errors import InferenceError, ModelContractError
from fer_agent.inference import available
from fer_agent.inference.noise import make_input
from fer_agent.inference.request import LoadRequest
from fer_agent.system import memory


def measure_network(task: dict[str, Any], stop: StopFlag) -> dict[str, Any]:
    """Measure a network as a task says.

    Args:
        task: `path`, `runtime`, `threads`, `warmup`, `runs`, `precision`, `store` for engines, and
            `shape` of the input, or None for the model's own with one input at a time.
        stop: ends the measurement early.

    Returns:
        Fields of a `NetworkResult`.

    Raises:
        ModelError: the file is no network that this runtime can load and feed.
        UnavailableError: the runtime is not here.
    """
    path = Path(task["path"])
    started_ns = time.perf_counter_ns()
    session = available.open_session(
        task["runtime"],
        LoadRequest(
            path=path,
            threads=task["threads"],
            precision="fp16" if task["precision"] == "fp16" else "fp32",
            shape=None if task["shape"] is None else tuple(task["shape"]),
            store=Path(task["store"]),
        ),
    )
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
        "memory": memory.figures(),
    }
