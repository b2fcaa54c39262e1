"""Repeated runs of a network on the same input and output arrays, without new allocations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fer_agent.errors import InferenceError
from fer_agent.vision.ports import InferenceSession

Run = Callable[[], None]


@runtime_checkable
class BindableSession(Protocol):
    """An `InferenceSession` that can also run on arrays given beforehand."""

    def bind(self, tensor: NDArray[np.generic], outputs: Mapping[str, NDArray[np.generic]]) -> Run:
        """Return a call that runs the network from `tensor` into `outputs`.

        Raises:
            InferenceError: an array cannot be bound. So does the run returned: the runtime refused
                the input, an output has another shape, or it failed while running.
        """
        ...


def bind(
    session: InferenceSession,
    tensor: NDArray[np.generic],
    outputs: Mapping[str, NDArray[np.generic]],
) -> Run:
    """Return a call that runs the network on `tensor` and leaves the results in `outputs`.

    A session that cannot write into foreign arrays has its results copied.

    Args:
        session: the network; other bindings of it may run at the same time.
        tensor: C-contiguous, of the input's dtype; filled again before each run.
        outputs: C-contiguous arrays by the names in the model file, every output once.

    Raises:
        InferenceError: as `BindableSession.bind`.
    """
    if isinstance(session, BindableSession):
        return session.bind(tensor, outputs)

    def run() -> None:
        results = session.run(tensor)
        for name, output in outputs.items():
            result = results.get(name)
            if result is None or result.shape != output.shape:
                have = "missing" if result is None else f"{result.dtype.name} {result.shape}"
                raise InferenceError(
                    f"output {name} is {have}, not {output.shape}",
                    remedy="check that the model is the one its manifest names; please report this",
                )
            np.copyto(output, result, casting="same_kind")

    return run
