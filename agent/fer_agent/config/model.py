"""The model of the configuration, one frozen object with a section for each package.

`fer_agent.config.loading` reads it from TOML, environment and command line; `fer-agent config init`
writes a file with every key, its default and the sentence below it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
from pathlib import Path
from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    field_validator,
    model_validator,
)

from fer_agent.errors import ConfigError

AnyPath = Annotated[Path, Strict(strict=False)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(gt=0.0)]

_PASSWORD_IN_ADDRESS = re.compile(r"(?i)(?:password|passwd|pass|pwd)=(?!\{password\})[^&]")
"""A password in path or query, as for cheap network cameras, other than the placeholder."""

PermittedContext = Literal[
    "home", "research", "accessibility", "entertainment", "medical", "safety", "public"
]
PERMITTED_CONTEXTS: tuple[str, ...] = get_args(PermittedContext)
JustifiedContext = Literal["workplace", "education"]
"""EU AI Act, Art. 5(1)(f) forbids inferring emotions there but for medical or safety reasons."""


class Section(BaseModel):
    """Base of all sections: frozen, typed as TOML is typed, unknown keys are errors."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )


def default_device_id() -> str:
    """Make `fer-` and eight hexadecimal digits hashed from the machine id, the same at every start.

    Cloned cards are all named raspberrypi, so the host name is used only without a machine id.
    """
    for path in (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")):
        with contextlib.suppress(OSError):
            if machine_id := path.read_text(encoding="ascii").strip():
                return f"fer-{hashlib.sha256(machine_id.encode()).hexdigest()[:8]}"
    return f"fer-{hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]}"


class DeviceConfig(Section):
    """The identity of this device."""

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")] = Field(
        default_factory=default_device_id, examples=["fer-0a1b2c3d"]
    )
    """The device's name in every topic; by default `fer-` and eight digits of the machine id."""


class DeploymentConfig(Section):
    """The declared use of this device; published with its info."""

    context: Literal[PermittedContext, JustifiedContext] = Field(examples=["home"])
    """Where the device is used. Workplace and education are refused without a justification."""

    medical_or_safety_justification: str = ""
    """The medical or safety reason that workplace and education need: EU AI Act, Art. 5(1)(f)."""

    @model_validator(mode="after")
    def _prohibited_without_reason(self) -> DeploymentConfig:
        permitted = self.context in PERMITTED_CONTEXTS
        if not permitted and not self.medical_or_safety_justification.strip():
            raise ValueError(
                f"context {self.context!r} is prohibited by the EU AI Act, Art. 5(1)(f), "
                "unless `medical_or_safety_justification` says why it is used"
            )
        return self


class CameraConfig(Section):
    """One camera or media file; `[camera.<name>]`, one table each."""

    source: Annotated[str, StringConstraints(min_length=1)] = Field(examples=["/dev/video0"])
    """/dev/video0, picam:0 on a Pi, csi:0 on a Jetson, rtsp://, http://, a video, GIF or folder."""

    enabled: bool = True
    """A disabled camera is published as such and never opened."""

    width: Annotated[int, Field(ge=16, le=8192)] = 640
    """Width to ask a device for, in pixels; files and streams keep their own."""

    height: Annotated[int, Field(ge=16, le=8192)] = 480
    """Height to ask a device for, in pixels; files and streams keep their own."""

    fps: Annotated[float, Field(gt=0.0, le=240.0)] = 30.0
    """Frames a second to ask a device for; also the pace of an image folder."""

    exposure_ms: Annotated[float, Field(gt=0.0, le=1000.0)] | None = Field(None, examples=[10.0])
    """Raspberry Pi cameras only: a fixed shutter time in ms; by default as the light asks for."""

    username: str = ""
    """Streams only: user name; none where `source` says {password}, which stands for the file's."""

    password_file: AnyPath | None = Field(None, examples=["/etc/fer-agent/camera-password"])
    """Streams only: file that holds the password; a plain name is one of systemd's credentials."""

    transport: Literal["tcp", "udp"] = "tcp"
    """RTSP only: tcp loses nothing, udp delays less where nothing gets lost."""

    rotate: Literal[0, 90, 180, 270] = 0
    """Turn the picture clockwise by so many degrees before faces are looked for."""

    flip: Literal["none", "horizontal", "vertical"] = "none"
    """Mirror the picture, after turning it."""

    roi: Annotated[list[Share], Field(min_length=4, max_length=4)] | None = Field(
        None, examples=[[0.0, 0.25, 1.0, 0.75]]
    )
    """Look for faces only here: left, top, right, bottom as shares of the original picture."""

    pace: Literal["own", "fast"] = "own"
    """Files only: play at their own pace, or hand over every frame as fast as it is taken."""

    loop: bool = False
    """Files only: start again at the end; the seam ends all tracks."""

    gap_s: Seconds = 2.0
    """After this long without a frame the tracks end."""

    deadline_s: Seconds = 5.0
    """A device or stream is opened again when it gave no frame for this long."""

    frozen_s: Annotated[float, Field(ge=0.0)] = 4.0
    """A device or stream whose picture stays the same for this long is faulty; 0 never looks."""

    @field_validator("source")
    @classmethod
    def _has_no_credentials(cls, value: str) -> str:
        if "://" in value and "@" in urlsplit(value).netloc:
            raise ValueError(
                "a user name or password in the address would show in process lists; "
                "use the camera's `username` and `password_file`"
            )
        if "://" in value and _PASSWORD_IN_ADDRESS.search(value):
            raise ValueError(
                "a password in the address would show in process lists; "
                "write {password} in its place and put it into the camera's `password_file`"
            )
        return value

    @field_validator("roi")
    @classmethod
    def _has_an_area(cls, value: list[float] | None) -> list[float] | None:
        if value is not None and not (value[0] < value[2] and value[1] < value[3]):
            raise ValueError("left must be less than right, and top less than bottom")
        return value


class DetectorConfig(Section):
    """Finding faces."""

    backend: Literal["auto", "yunet", "haar"] = "auto"
    """auto takes YuNet, and the Haar cascade while YuNet's file cannot be had."""

    model_file: AnyPath | None = Field(default=None, examples=["/path/to/yunet.onnx"])
    """YuNet's ONNX file; by default the model store's, downloaded once."""

    download: bool = True
    """Whether YuNet may be downloaded from its published address when no file is there."""

    long_side: Annotated[int, Field(ge=64, le=2048, multiple_of=32)] = 320
    """The frame's longer side is scaled to this many pixels before detection."""

    score: Share = 0.6
    """Faces with a lower score are left out."""

    nms_iou: Share = 0.3
    """Of two faces that overlap more than this, the better one stays."""

    rest_s: Annotated[float, Field(ge=0.0, le=2.0)] = 0.3
    """While nothing moves, faces are looked for this often, in seconds; 0 looks at every frame."""

    threads: Annotated[int, Field(ge=1, le=64)] = 1
    """Threads inside one inference."""

    runtime: Literal["auto", "onnx", "tensorrt"] = "auto"
    """What YuNet runs on; auto is what the classifier runs on."""


class TrackerConfig(Section):
    """Following faces."""

    min_iou: Share = 0.2
    """Overlap with a track's predicted box that lets a face continue it; so does being close."""

    confirm_frames: Annotated[int, Field(ge=1)] = 2
    """Frames in which a new face must be found before it becomes a track."""

    max_missed_s: Seconds = 1.5
    """A track that was not seen for longer, and in more than three frames, has ended."""


class ClassifierConfig(Section):
    """Reading emotions."""

    model: str = "microexpnet-ferplus"
    """Name of a model in the store or among the shipped ones."""

    runtime: Literal["auto", "onnx", "tensorrt"] = "auto"
    """auto is as `fer-agent models build` measured, else ONNX Runtime; it serves while TensorRT
    builds."""

    precision: Literal["auto", "fp32", "fp16", "int8"] = "auto"
    """Which of the model's files runs; auto is as `fer-agent models build` measured, else fp32."""

    threads: Annotated[int, Field(ge=1, le=64)] | None = Field(None, examples=[1])
    """Threads inside one inference; by default as `fer-agent models build` measured, else 1."""


class SmootherConfig(Section):
    """From per-frame probabilities to events."""

    time_constant_s: Seconds = 0.5
    """A change of the face has reached 63 % of the published probabilities after this long."""

    dwell_s: Annotated[float, Field(ge=0.0)] = 0.5
    """A new label must lead for this long before it is published."""

    margin: Share = 0.05
    """A new label must lead the published one by this much probability."""

    abstain_below: Share | None = Field(default=None, examples=[0.45])
    """Below this confidence the word is `uncertain`; by default the model's own threshold."""

    update_s: Seconds = 5.0
    """Longest time between two events of a track that goes on."""


class MqttConfig(Section):
    """The broker."""

    broker: str = "mqtt://127.0.0.1:1883"
    """mqtt://host:port, or mqtts://host:port for TLS."""

    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    """auto speaks MQTT 5, and 3.1.1 to a broker that refuses 5."""

    username: str = ""
    """User name, if the broker wants one."""

    password_file: AnyPath | None = Field(default=None, examples=["mqtt-password"])
    """File that holds the password; a plain name is looked up among systemd's credentials."""

    ca_file: AnyPath | None = Field(default=None, examples=["/etc/fer-agent/ca.pem"])
    """CA certificates for TLS; by default the system's."""

    client_cert_file: AnyPath | None = Field(default=None, examples=["/etc/fer-agent/client.pem"])
    """Client certificate, if the broker wants one."""

    client_key_file: AnyPath | None = Field(default=None, examples=["/etc/fer-agent/client.key"])
    """Key of the client certificate."""

    keepalive_s: Annotated[int, Field(ge=5, le=3600)] = 30
    """Seconds of silence after which the broker publishes the last will (after 1.5 times that)."""

    outbox_events: Annotated[int, Field(ge=10, le=1_000_000)] = 1000
    """Events kept while the broker is away; `updated` events go first when it is full."""

    @field_validator("broker")
    @classmethod
    def _is_broker_uri(cls, value: str) -> str:
        parse_broker(value)
        return value


class ModelsConfig(Section):
    """The model store."""

    path: AnyPath | None = Field(default=None, examples=["/var/lib/fer-agent/models"])
    """Folder of downloaded models; by default /var/lib/fer-agent/models, or the user's data."""

    repository: Annotated[str, StringConstraints(pattern=r"^https?://[^\s@?#]+$")] | None = Field(
        default=None, examples=["https://models.example.org/fer"]
    )
    """Address of the signed repository that `fer-agent models sync` fetches from."""

    root_file: AnyPath | None = Field(default=None, examples=["/etc/fer-agent/root.json"])
    """The repository's root metadata, from whoever publishes: all trust begins with it."""

    names: Annotated[list[Name], Field(max_length=32)] = []
    """More models to keep up to date than the classifier's and the face detector in use."""

    proxy: Annotated[str, StringConstraints(pattern=r"^(http://[^\s@/?#]+/?)?$")] = ""
    """http://host:port for downloads; by default as `https_proxy` and `no_proxy` say."""

    ca_file: AnyPath | None = Field(default=None, examples=["/etc/fer-agent/ca.pem"])
    """CA certificates for downloads; by default the system's."""

    limit_bytes: Annotated[int, Field(ge=1_000_000)] = 100_000_000
    """A version that is larger is refused before anything of it is fetched."""

    interval_hours: Annotated[float, Field(ge=1.0, le=720.0)] = 6.0
    """Hours between two syncs of the timer, which fires more often and spreads devices."""

    keep_versions: Annotated[int, Field(ge=2, le=100)] = 3
    """Versions of one model that stay in the store, the running one included."""

    keep_bytes: Annotated[int, Field(ge=1_000_000)] = 200_000_000
    """Size of those versions together; what runs and what it would go back to always stay."""

    slowdown_limit: Annotated[float, Field(ge=1.0, le=100.0)] = 1.5
    """A new version that takes longer for a face than so many times the current one is refused."""

    confirm_minutes: Annotated[float, Field(gt=0.0, le=1440.0)] = 10.0
    """Minutes without a fault after which a new version has proved itself; before, it goes back."""


class HealthConfig(Section):
    """Figures about the agent itself."""

    interval_s: Seconds = 60.0
    """Seconds between two health messages."""

    slow_when_throttled: bool = True
    """Take 15, 8, then 4 frames a second while the board slows itself down for heat or power."""


class AgentConfig(Section):
    """The whole configuration."""

    device: DeviceConfig = Field(default_factory=DeviceConfig)
    deployment: DeploymentConfig
    camera: Annotated[dict[Name, CameraConfig], Field(min_length=1)]
    detector: DetectorConfig = DetectorConfig()
    tracker: TrackerConfig = TrackerConfig()
    classifier: ClassifierConfig = ClassifierConfig()
    smoother: SmootherConfig = SmootherConfig()
    mqtt: MqttConfig = MqttConfig()
    models: ModelsConfig = ModelsConfig()
    health: HealthConfig = HealthConfig()

    @property
    def store(self) -> Path:
        """The folder of downloaded models."""
        return self.models.path or default_store()


def default_store() -> Path:
    """Return the folder of downloaded models when the configuration names none.

    The service and root share `/var/lib/fer-agent/models`; other users have a store under
    `$XDG_DATA_HOME`.
    """
    shared = Path("/var/lib/fer-agent")
    if os.geteuid() == 0 or os.access(shared, os.W_OK):
        return shared / "models"
    data_home = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(data_home) / "fer-agent" / "models"


class BrokerAddress(Section):
    """The parts of a broker URI."""

    host: str
    port: int
    tls: bool


def parse_broker(uri: str) -> BrokerAddress:
    """Parse `mqtt://host[:port]` or `mqtts://host[:port]`; ports default to 1883 and 8883.

    Raises:
        ValueError: another scheme, no host, a port out of range, or a password in the URI.
    """
    parts = urlsplit(uri)
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "a user name or password in the address would show in process lists; "
            "use `mqtt.username` and `mqtt.password_file`"
        )
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
        raise ValueError(f"{uri!r} is no mqtt://host:port or mqtts://host:port")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"{uri!r} has something after the port")
    if parts.port == 0:
        raise ValueError(f"{uri!r} has port 0")
    tls = parts.scheme == "mqtts"
    return BrokerAddress(host=parts.hostname, port=parts.port or (8883 if tls else 1883), tls=tls)


def read_secret(path: Path) -> str:
    """Read a secret's file, without its final newline; a plain name is a systemd credential.

    Raises:
        ConfigError: the file cannot be read or is empty.
    """
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials and len(path.parts) == 1:
        path = Path(credentials) / path
    remedy = "write the secret into that file, readable for the agent's user only"
    try:
        secret = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the secret in {path}: {error}", remedy=remedy) from error
    if not secret:
        raise ConfigError(f"the secret in {path} is empty", remedy=remedy)
    return secret
