from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fer_agent.config.model import (
    AgentConfig,
    CameraConfig,
    DeploymentConfig,
    DetectorConfig,
    MqttConfig,
    SmootherConfig,
    default_device_id,
    parse_broker,
    read_secret,
)
from fer_agent.errors import ConfigError

MINIMAL: dict[str, Any] = {
    "deployment": {"context": "home"},
    "camera": {"front": {"source": "/dev/video0"}},
}


def test_context_and_one_camera_are_enough() -> None:
    config = AgentConfig.model_validate(MINIMAL)
    assert config.camera["front"].source == "/dev/video0"
    assert config.device.id == default_device_id()


def test_config_cannot_be_edited() -> None:
    config = AgentConfig.model_validate(MINIMAL)
    with pytest.raises(ValidationError, match="frozen"):
        config.detector.score = 0.1  # type: ignore[misc]  # that it is refused is the point


def test_default_device_id_is_stable_and_made_for_topics() -> None:
    assert default_device_id() == default_device_id()
    assert len(default_device_id()) == len("fer-00000000")
    assert default_device_id().startswith("fer-")


@pytest.mark.parametrize("context", ["workplace", "education"])
def test_prohibited_contexts_need_a_written_justification(context: str) -> None:
    with pytest.raises(ValidationError, match=r"AI Act, Art\. 5\(1\)\(f\)"):
        DeploymentConfig.model_validate({"context": context})
    with pytest.raises(ValidationError, match="AI Act"):
        DeploymentConfig.model_validate(
            {"context": context, "medical_or_safety_justification": "  "}
        )
    reason = "detects pain of patients who cannot speak"
    DeploymentConfig.model_validate({"context": context, "medical_or_safety_justification": reason})


@pytest.mark.parametrize(
    ("section", "value"),
    [
        (DetectorConfig, {"score": 1.01}),
        (DetectorConfig, {"score": float("nan")}),
        (DetectorConfig, {"score": "0.6"}),
        (DetectorConfig, {"long_side": 330}),
        (DetectorConfig, {"threads": 1.5}),
        (DetectorConfig, {"download": 1}),
        (SmootherConfig, {"time_constant_s": float("inf")}),
        (SmootherConfig, {"time_constant_s": 0}),
        (CameraConfig, {"source": ""}),
        (CameraConfig, {"source": "0", "fps": 0}),
        (CameraConfig, {"source": "0", "width": 0}),
        (CameraConfig, {"source": "0", "rotate": 45}),
        (CameraConfig, {"source": "a.mp4", "sourze": "b.mp4"}),
        (MqttConfig, {"keepalive_s": 0}),
        (MqttConfig, {"password_file": 5}),
    ],
)
def test_values_out_of_range_or_of_another_type_are_refused(
    section: type[DetectorConfig], value: dict[str, object]
) -> None:
    with pytest.raises(ValidationError):
        section.model_validate(value)


@pytest.mark.parametrize("name", ["Front", "front_door", "-a", "a-", "", "a" * 33, "a/b"])
def test_camera_names_must_fit_into_a_topic(name: str) -> None:
    with pytest.raises(ValidationError):
        AgentConfig.model_validate(MINIMAL | {"camera": {name: {"source": "x"}}})


@pytest.mark.parametrize(
    "source",
    [
        "rtsp://me:hunter2@camera/x",
        "http://camera/video?user=me&pwd=hunter2",
        "rtsp://camera/user=me_password=hunter2_channel=1",
    ],
)
def test_a_password_in_a_cameras_address_is_refused_with_the_remedy(source: str) -> None:
    with pytest.raises(ValidationError, match="password_file"):
        CameraConfig(source=source)


def test_a_placeholder_for_the_password_may_stand_in_a_cameras_address() -> None:
    source = "http://camera/video?user=me&pwd={password}"
    assert CameraConfig(source=source).source == source


def test_broker_uri_defaults_its_port_by_scheme() -> None:
    assert parse_broker("mqtt://broker.local").port == 1883
    assert not parse_broker("mqtt://broker.local").tls
    assert parse_broker("mqtts://broker.local").port == 8883
    assert parse_broker("mqtts://broker.local/").tls


def test_broker_uri_takes_ipv6() -> None:
    address = parse_broker("mqtt://[::1]:1884")
    assert (address.host, address.port) == ("::1", 1884)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "broker.local",
        "broker.local:1883",
        "http://broker.local",
        "mqtt://",
        "mqtt://:1883",
        "mqtt://host:99999",
        "mqtt://host:0",
        "mqtt://host:port",
        "mqtt://host/path",
        "mqtt://host?x=1",
        "mqtt://[::1",
    ],
)
def test_other_broker_uris_are_refused(uri: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_broker(uri)


def test_password_in_the_broker_uri_is_refused_without_repeating_it() -> None:
    with pytest.raises(ValueError, match="password_file") as caught:
        parse_broker("http://me:hunter2@host")
    assert "hunter2" not in str(caught.value)


def test_secret_is_read_without_its_final_newline(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(" pass word \n")
    assert read_secret(tmp_path / "password") == " pass word "


def test_plain_secret_name_is_a_systemd_credential(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mqtt").write_text("s3cret")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_secret(Path("mqtt")) == "s3cret"


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"])
def test_missing_empty_or_binary_secret_is_a_config_error(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "password").write_bytes(content)
    with pytest.raises(ConfigError, match="password") as caught:
        read_secret(tmp_path / "password")
    assert caught.value.exit_code == 78
    assert caught.value.remedy
