from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from fer_agent.app.device_info import DeviceInfo
from fer_agent.config.model import AgentConfig
from fer_agent.inference.setting import Setting
from fer_agent.mqtt.messages import Identity
from fer_agent.mqtt.payloads import ModelInfo, Updates
from fer_agent.updates.activation.swap import Ready
from fer_agent.vision.records import EmotionScores, ModelIdentity

if TYPE_CHECKING:
    from fer_agent.mqtt.payloads import InfoPayload
    from fer_agent.vision.records import Frame, Tracks

IDENTITY = Identity.of_this_run("fer-1")
CONFIG = AgentConfig.model_validate(
    {"deployment": {"context": "home"}, "camera": {"door": {"source": "0"}}}
)


class Classifier:
    """Reads every face as happy."""

    def classify(self, frame: Frame, tracks: Tracks) -> EmotionScores:
        probs = np.tile(np.array([1.0, 0.0], np.float32), (len(tracks), 1))
        return EmotionScores(("happy", "sad"), probs, ModelIdentity("net", "0" * 64))


def ready(version: str, setting: Setting) -> Ready:
    info = ModelInfo(name="net", sha256="0" * 64, version=version, precision="fp32")
    return Ready(Classifier(), info, ("happy", "sad"), setting)


@pytest.fixture
def published() -> list[InfoPayload]:
    return []


@pytest.fixture
def info(published: list[InfoPayload]) -> DeviceInfo:
    return DeviceInfo(CONFIG, IDENTITY, published.append)


def test_nothing_is_published_before_a_classifier_is_known(
    info: DeviceInfo, published: list[InfoPayload]
) -> None:
    info.detector(ModelInfo(name="yunet", sha256="1" * 64))
    assert published == []
    info.classifier(ready("1.0.0", Setting()))
    assert [one.models.classifier.version for one in published] == ["1.0.0"]
    assert published[0].models.detector is not None
    assert published[0].cameras == ("door",)
    assert published[0].session == IDENTITY.session


def test_each_change_is_published_whole(info: DeviceInfo, published: list[InfoPayload]) -> None:
    info.classifier(ready("1.0.0", Setting()))
    updates = Updates(synced=None, models=(), last_failure=None)
    info.updates(updates)
    info.classifier(ready("1.1.0", Setting()))
    assert published[-1].updates == updates
    assert published[-1].models.classifier.version == "1.1.0"
    assert published[-1].runtime.startswith("ONNX Runtime ")


def test_an_engine_that_is_being_built_is_not_the_runtime_yet(
    info: DeviceInfo, published: list[InfoPayload]
) -> None:
    info.classifier(ready("1.0.0", Setting(runtime="tensorrt")))
    assert published[-1].runtime.startswith("ONNX Runtime "), "it serves while the engine is built"
