"""A session that starts on one runtime and goes on with a faster one when that is ready."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from fer_agent.errors import InferenceError
from fer_agent.vision.binding import bind
from fer_agent.vision.ports import InferenceSession

logger = logging.getLogger(__name__)


class StandbySession:
    """Runs a network on what is there; satisfies `InferenceSession`, and can be bound.

    Args:
        plain: what runs at once, and again should the faster one fail.
    """

    def __init__(self, plain: InferenceSession) -> None:
        self._plain = plain
        self._current = plain

    @property
    def input_shape(self) -> tuple[int | str | None, ...]:
        """The input's shape as the model declares it; names or None where dynamic."""
        return self._plain.input_shape

    def upgrade(self, faster: InferenceSession) -> None:
        """Let the next run be the faster session's; what is under way ends where it began."""
        self._current = faster

    def run(self, tensor: NDArray[np.generic]) -> Mapping[str, NDArray[np.generic]]:
        """Run the network once.

        Raises:
            InferenceError: the plain session refused the input or failed while running.
        """
        current = self._current  # read once: another thread may change it meanwhile
        try:
            return current.run(tensor)
        except InferenceError as error:
            self._fall_back(current, error)
            return self._plain.run(tensor)

    def bind(
        self, tensor: NDArray[np.generic], outputs: Mapping[str, NDArray[np.generic]]
    ) -> Callable[[], None]:
        """Prepare runs that read one array and write others; see `runtime.binding`.

        Raises:
            InferenceError: as `bind` and the run of the plain session.
        """
        plain_run = bind(self._plain, tensor, outputs)
        bound: tuple[InferenceSession, Callable[[], None]] = self._plain, plain_run

        def run() -> None:
            nonlocal bound
            current = self._current
            try:
                if bound[0] is not current:
                    bound = current, bind(current, tensor, outputs)
                bound[1]()
            except InferenceError as error:
                self._fall_back(current, error)
                bound = self._plain, plain_run
                plain_run()

        return run

    def _fall_back(self, failed: InferenceSession, error: InferenceError) -> None:
        if failed is self._plain:
            raise error
        if self._current is failed:
            # Its words alone: the error itself holds on to the failed session.
            logger.warning("going back to the plain runtime: %s", str(error))
            self._current = self._plain
