"""The facts about this device that the `info` message publishes."""

from __future__ import annotations

import hashlib
import platform
import threading
from collections.abc import Callable
from typing import Any

from fer_agent import __version__
from fer_agent.config.model import AgentConfig
from fer_agent.inference import available
from fer_agent.mqtt.messages import Identity
from fer_agent.mqtt.payloads import InfoPayload, ModelInfo, Models, Updates
from fer_agent.system import board
from fer_agent.updates.activation.swap import Ready


class DeviceInfo:
    """The facts of the `info` message; made first and handed down to the parts that change them.

    Its methods may be called from any thread.

    Args:
        config: the configuration.
        identity: the device and its session.
        publish: called with the whole message, once a classifier is known and at each change.
    """

    def __init__(
        self,
        config: AgentConfig,
        identity: Identity,
        publish: Callable[[InfoPayload], None] = lambda _info: None,
    ) -> None:
        self._publish = publish
        self._lock = threading.Lock()
        self._classifier: ModelInfo | None = None
        self._detector: ModelInfo | None = None
        self._facts: dict[str, Any] = {
            "agent_version": __version__,
            "python_version": platform.python_version(),
            "os": platform.platform(),
            "board": board.model_name(),
            "runtime": _title("onnx"),
            "cameras": tuple(config.camera),
            "config_sha256": hashlib.sha256(config.model_dump_json().encode()).hexdigest(),
            "deployment_context": config.deployment.context,
            "session": identity.session,
        }

    def classifier(self, ready: Ready) -> None:
        """Set the classifier in use; an engine that is being built is set once it serves."""
        if ready.setting.runtime == "onnx":
            self._facts["runtime"] = _title("onnx")
        self._classifier = ready.info
        self._changed()

    def detector(self, model: ModelInfo | None) -> None:
        """Set the face detector's model; None for one without."""
        self._detector = model
        self._changed()

    def runtime(self, name: str) -> None:
        """Set the runtime that the classifier runs on."""
        self._facts["runtime"] = _title(name)
        self._changed()

    def updates(self, updates: Updates) -> None:
        """Set how the models are kept up to date."""
        self._facts["updates"] = updates
        self._changed()

    def _changed(self) -> None:
        with self._lock:  # so that the newest message is published last
            if self._classifier is not None:
                models = Models(classifier=self._classifier, detector=self._detector)
                self._publish(InfoPayload(models=models, **self._facts))


def _title(runtime: str) -> str:
    return f"{available.find(runtime).title} {available.version(runtime)}"
