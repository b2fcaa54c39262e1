"""The service loop: a thread per camera, periodic tasks, health messages and an orderly end."""

from __future__ import annotations

import logging
import threading
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Protocol

from fer_agent.app.watchdog import Watchdog
from fer_agent.errors import CameraError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fer_agent.app.health import HealthReporter
    from fer_agent.mqtt.publisher import MqttPublisher
    from fer_agent.vision.pipeline import Pipeline
    from fer_agent.vision.recorder import FrameRecorder

logger = logging.getLogger(__name__)

_CLOSE_S = 2.0
"""Seconds for all cameras and pipelines to close and to end their tracks. With three more for the
publisher's stop message, an agent with hung cameras ends within five."""

_TASK_INTERVAL_S = 1.0

_STOP = "stop"
_ENDED = "ended"


class PeriodicTask(Protocol):
    """Work that is done once a second beside the frames, on the thread of `Agent.run`."""

    def tick(self) -> None:
        """Do it and return soon; a fault outside the agent raises no exception."""
        ...

    def close(self, *, orderly: bool) -> None:
        """End with the agent; `orderly` is False when a network failed or a bug ended it."""
        ...


class _Worker:
    """A pipeline in its thread; the exception that ended it stays in `error`."""

    def __init__(self, name: str, pipeline: Pipeline, on_end: Callable[[], None]) -> None:
        self.name = name
        self.pipeline = pipeline
        self.error: BaseException | None = None
        self.ended = False
        self._on_end = on_end
        # A daemon, so that a driver call that never returns cannot keep the process alive.
        self.thread = threading.Thread(target=self._run, name=f"pipeline-{name}", daemon=True)

    def _run(self) -> None:
        try:
            self.pipeline.run()
        except BaseException as error:  # noqa: BLE001 - thread boundary: Agent.run raises it again
            # The status of the camera reports its fault already.
            level = logging.DEBUG if isinstance(error, CameraError) else logging.ERROR
            logger.log(level, "camera %s ended: %s", self.name, error)
            self.error = error
        finally:
            self.ended = True
            self._on_end()


class Agent:
    """All pipelines of one device with their shared publisher."""

    def __init__(
        self,
        pipelines: dict[str, Pipeline],
        *,
        publisher: MqttPublisher | None,
        health: HealthReporter,
        record: FrameRecorder | None = None,
        watchdog: Watchdog | None = None,
        tasks: Sequence[PeriodicTask] = (),
    ) -> None:
        """Take the parts over; `run` starts and ends them.

        Args:
            pipelines: one for each enabled camera, by the camera's name.
            publisher: where events go; None keeps everything on the device.
            health: makes the health figures; read by the commands once the agent has ended.
            record: closed at the end of the run.
            watchdog: tells systemd that the agent is ready, alive and stopping.
            tasks: run once a second.
        """
        # SimpleQueue.put is the one wake-up call that is safe inside a signal handler.
        self._wake: SimpleQueue[str] = SimpleQueue()
        self._workers = [
            _Worker(name, pipeline, on_end=lambda: self._wake.put(_ENDED))
            for name, pipeline in pipelines.items()
        ]
        self._publisher = publisher
        self._record = record
        self._watchdog = watchdog or Watchdog({})
        self._tasks = tasks
        self._tasks_due_s = 0.0
        self.health = health

    @property
    def pipelines(self) -> dict[str, Pipeline]:
        """The pipelines by camera, for measurements that do not run the agent."""
        return {worker.name: worker.pipeline for worker in self._workers}

    def stop(self) -> None:
        """Ask a running agent to end, from any thread or a signal handler; returns at once."""
        self._wake.put(_STOP)

    def run(self) -> None:
        """Run until stopped, or until every source is finished.

        Raises:
            CameraError: no file source could be played, and nothing else was there to do.
            InferenceError: a network failed while running.
        """
        if self._publisher is not None:
            self._publisher.start()
        for worker in self._workers:
            worker.thread.start()
        self._watchdog.ready()
        orderly = False
        try:
            self._wait()
            orderly = not self._broken()
        finally:
            self._watchdog.stopping()
            self._end()
            for task in self._tasks:
                task.close(orderly=orderly and not self._broken())
        self._raise_errors()

    def _wait(self) -> None:
        """Report health and notify systemd at their intervals until stopped, done, or broken."""
        health_due_s = time.monotonic() + self.health.interval_s
        while self._busy():
            self._watchdog.notify([worker.name for worker in self._workers if worker.ended])
            self._run_tasks()
            due_s = min(health_due_s, self._tasks_due_s) if self._tasks else health_due_s
            rest_s = max(0.0, due_s - time.monotonic())
            try:
                if self._wake.get(timeout=min(rest_s, self._watchdog.interval_s)) == _STOP:
                    return
            except Empty:
                if time.monotonic() >= health_due_s:
                    health_due_s = time.monotonic() + self.health.interval_s
                    if self._publisher is not None:
                        self._publisher.health(self.health.measure())

    def _run_tasks(self) -> None:
        if time.monotonic() >= self._tasks_due_s:
            for task in self._tasks:
                task.tick()
            self._tasks_due_s = time.monotonic() + _TASK_INTERVAL_S

    def _broken(self) -> bool:
        """Return whether a pipeline ended by a fault that is not its camera's."""
        return any(
            worker.error is not None and not isinstance(worker.error, CameraError)
            for worker in self._workers
        )

    def _busy(self) -> bool:
        return not self._broken() and not all(worker.ended for worker in self._workers)

    def _end(self) -> None:
        """Close cameras, let the pipelines end their tracks, then stop the publisher."""
        deadline_s = time.monotonic() + _CLOSE_S
        closers = [
            threading.Thread(
                target=worker.pipeline.camera.close, name=f"close-{worker.name}", daemon=True
            )
            for worker in self._workers
        ]
        for closer in closers:  # side by side: a hung camera takes no time from the others
            closer.start()
        for thread in (*closers, *(worker.thread for worker in self._workers)):
            thread.join(max(0.0, deadline_s - time.monotonic()))
        for worker in self._workers:
            if worker.thread.is_alive():
                logger.warning("camera %s did not stop; leaving it behind", worker.name)
        if self._publisher is not None:
            self._publisher.stop()
        if self._record is not None:
            self._record.close()

    def _raise_errors(self) -> None:
        unplayable: list[CameraError] = []
        for worker in self._workers:
            if isinstance(worker.error, CameraError):
                unplayable.append(worker.error)
            elif worker.error is not None:
                raise worker.error
        if unplayable and len(unplayable) == len(self._workers):
            raise unplayable[0]
