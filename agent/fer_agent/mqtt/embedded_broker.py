"""The demo's MQTT broker inside this process: MQTT 3.1.1, loopback only, not persistent."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from typing import TYPE_CHECKING

from fer_agent.errors import BrokerError, MissingExtraError

if TYPE_CHECKING:
    from amqtt.broker import Broker
    from typing_extensions import Self

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 5.0
_DISCONNECT_S = 1.0
"""The time that clients have to disconnect before the broker ends."""


class EmbeddedBroker:
    """An amqtt broker in a separate thread, on a free port; a context manager.

    Attributes:
        uri: `mqtt://127.0.0.1:<port>`, known once entered.
    """

    def __init__(self) -> None:
        self.uri = ""
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="embedded-broker", daemon=True)

    def __enter__(self) -> Self:
        """Start the broker and wait until it listens.

        Raises:
            MissingExtraError: amqtt is not installed.
            BrokerError: it does not start.
        """
        try:
            import amqtt.broker  # noqa: F401, PLC0415 - an extra; only the demo pays for it
        except ImportError as error:
            self._loop.close()
            raise MissingExtraError(
                "the demo's broker, the package amqtt, is not installed",
                remedy="run `pip install 'fer-agent[broker]'`",
            ) from error
        self._thread.start()
        if not self._ready.wait(_START_TIMEOUT_S) or self._error is not None:
            raise BrokerError(
                f"the embedded broker did not start: {self._error or 'no answer'}",
                remedy="check that programs may listen on 127.0.0.1",
            ) from self._error
        return self

    def __exit__(self, *_exc: object) -> None:
        """Stop the broker, in a few seconds at most."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_STOP_TIMEOUT_S)
        if self._thread.is_alive():
            logger.warning("the embedded broker did not stop; leaving it behind")

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except Exception as error:
            logger.warning("the embedded broker ended: %s", error, exc_info=True)
            self._error = error
        finally:
            self._ready.set()
            self._loop.close()

    async def _serve(self) -> None:
        port = _free_port()
        broker = _make_broker(port)
        await broker.start()
        self.uri = f"mqtt://{HOST}:{port}"
        self._ready.set()
        await self._stop.wait()
        # amqtt's shutdown forgets clients that are just leaving.
        if leaving := [task for task in asyncio.all_tasks() if _serves_a_client(task)]:
            await asyncio.wait(leaving, timeout=_DISCONNECT_S)
        await broker.shutdown()
        leftover = asyncio.all_tasks() - {asyncio.current_task()}
        for task in leftover:
            task.cancel()
        await asyncio.gather(*leftover, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the loop's next round


def _serves_a_client(task: asyncio.Task[object]) -> bool:
    return getattr(task.get_coro(), "__name__", "") == "stream_connected"


def _make_broker(port: int) -> Broker:
    from amqtt.broker import Broker  # noqa: PLC0415 - as above

    class TidyBroker(Broker):  # type: ignore[misc] # amqtt comes without types
        async def stream_connected(
            self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str
        ) -> None:
            """Serve a client; close its socket, which amqtt leaves open when a delivery fails."""
            try:
                await super().stream_connected(reader, writer, listener_name)
            finally:
                writer.close()

    return TidyBroker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"{HOST}:{port}"}},
            "plugins": {
                "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}
            },
        }
    )


def _free_port() -> int:
    """Return an unused port: amqtt does not report the port that it gets for port 0."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
