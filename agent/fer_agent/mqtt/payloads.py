"""The models of the payloads on the wire, which write them and give their schemas.

Within v1 fields are only ever added, so a reader ignores what it does not know. No payload carries
a picture, a crop or an embedding. Docstrings of fields are their descriptions in the schemas.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from fer_agent.models.emotions import DominantWord, Label, Word
from fer_agent.vision.records import CameraState

SCHEMA_ROOT: Final = "urn:fer-agent:schema:v1:"
"""Schemas are named, not hosted: the same files are in the repository and in the package."""

SCHEMA_NAMES: Final = (
    "status",
    "info",
    "health",
    "camera-status",
    "event",
    "event-data",
    "state",
    "alert",
)
EVENT_DATA_SCHEMA: Final = SCHEMA_ROOT + "event-data"

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0.0)]
Rate = Annotated[float, Field(ge=0.0)]
Uuid = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Box = tuple[Share, Share, Share, Share]


class Payload(BaseModel):
    """The base of all payloads; unknown fields are ignored, because v1 may grow."""

    model_config = ConfigDict(frozen=True, protected_namespaces=(), extra="ignore")

    def encode(self) -> bytes:
        """Write the payload as compact UTF-8 JSON."""
        return self.model_dump_json().encode()


class ModelRef(Payload):
    """The name and hash of a model."""

    name: str
    """Name of the model."""
    sha256: Sha256
    """Hash of the file that runs."""


class ModelInfo(ModelRef):
    """A model in use."""

    version: str | None = None
    """Version from the model's manifest; null for a detector without one."""
    precision: Literal["fp32", "fp16", "int8"] | None = None
    """Precision of the file that runs."""


class Models(Payload):
    """The models in use."""

    classifier: ModelInfo
    """Reads emotions from faces."""
    detector: ModelInfo | None = None
    """Finds faces; null while the Haar cascade of OpenCV stands in."""


class ModelUpdate(Payload):
    """One model that is kept up to date."""

    name: str
    """Its name."""
    current: str | None
    """The version in use; null without one."""
    available: str | None
    """The newest version in the repository at the last sync; null when that is not known."""
    on_probation: bool
    """True if the version in use is still to be confirmed."""


class UpdateFailure(Payload):
    """A rejected version, or a failed sync."""

    at: AwareDatetime
    """When, by the device's clock."""
    text: str
    """What went wrong, for people."""


class Updates(Payload):
    """The state of the device's model updates."""

    synced: AwareDatetime | None
    """When the last sync ended, by the device's clock; null when there was none."""
    models: tuple[ModelUpdate, ...]
    """The models kept up to date."""
    last_failure: UpdateFailure | None
    """The newest failure or rejection; null when there was none."""


class StatusPayload(Payload):
    """Topic `status`: whether the agent runs."""

    state: Literal["starting", "online", "degraded", "stopped", "offline"]
    """degraded: a camera is offline. stopped: ended by request. offline: the broker lost it."""
    session: Uuid
    """New with every start of the agent."""
    since: AwareDatetime | None
    """When this state began; null in the last will, whose moment only the broker knows."""


class InfoPayload(Payload):
    """Topic `info`: what runs there."""

    agent_version: str
    """Version of fer-agent."""
    python_version: str
    """Version of Python."""
    os: str
    """Operating system and kernel."""
    board: str
    """Model of the board, or the machine's architecture."""
    runtime: str
    """Inference runtime and its version."""
    models: Models
    """The models in use."""
    updates: Updates | None = None
    """The state of their updates; null before they are first read."""
    cameras: tuple[str, ...]
    """Names of the configured cameras."""
    config_sha256: Sha256
    """Hash of the effective configuration, without secrets."""
    deployment_context: str
    """Declared use of the device, such as home or research."""
    session: Uuid
    """The agent's session."""
    schemas: tuple[str, ...] = tuple(SCHEMA_ROOT + name for name in SCHEMA_NAMES)
    """Names of the JSON Schemas that this agent's payloads follow."""


class LatencyPayload(Payload):
    """Durations of one stage over the last interval, in milliseconds."""

    p50: Rate
    """Median."""
    p95: Rate
    """95th percentile."""
    p99: Rate
    """99th percentile."""


class OutboxHealth(Payload):
    """Events on their way to the broker, since the agent started."""

    published: Count
    """Events the agent made."""
    acknowledged: Count
    """Events the broker has confirmed."""
    dropped: Count
    """Events lost to a full outbox, or refused by the broker."""
    queued: Count
    """Events waiting now."""


class HealthPayload(Payload):
    """Topic `health`: figures about the agent itself; null where they are unknown."""

    session: Uuid
    """The agent's session."""
    time: AwareDatetime
    """When this was measured."""
    uptime_s: Seconds
    """Seconds since the agent started."""
    camera_fps: Rate | None = None
    """Frames a second the cameras gave."""
    process_fps: Rate | None = None
    """Frames a second that went through the whole pipeline."""
    skipped_fps: Rate | None = None
    """Frames a second replaced by newer ones before they were taken, or left out for the heat."""
    detection_fps: Rate | None = None
    """Frames a second searched for faces; fewer than went through while nothing moves."""
    latency_ms: dict[str, LatencyPayload] = Field(default_factory=dict)
    """Per stage (detect, track, classify, smooth, publish) and `total`, capture to event."""
    memory_bytes: Count | None = None
    """Memory that only this process uses."""
    temperature_c: float | None = None
    """Temperature of the processor."""
    throttled: bool | None = None
    """True if the board slowed itself down since the last report, for heat or power; null where
    that is unknown."""
    clock_synced: bool | None = None
    """True if the clock is synchronised."""
    outbox: OutboxHealth | None = None
    """Events on their way to the broker."""
    reconnects: Count | None = None
    """Connections to the broker after the first."""


class CameraStatusPayload(Payload):
    """Topic `cameras/<camera>/status`: whether a camera gives frames."""

    state: CameraState
    """online, offline or disabled."""
    reason: str
    """Why, in one sentence; empty when online."""
    since: AwareDatetime
    """When this state began."""


class EventData(Payload):
    """The data of an event: one tracked face."""

    session: Uuid
    """The agent's session; track ids start again with each."""
    mono_ns: int
    """Monotonic clock of the device at capture, in nanoseconds."""
    clock_synced: bool | None
    """True if `time` comes from a synchronised clock; null where that is unknown."""
    replayed: bool
    """True when it was kept while the broker was away, or is sent again after a lost connection."""
    model: ModelRef
    """The classifier."""
    emotion: Word
    """The smoothed label, or uncertain."""
    confidence: Share
    """Smoothed probability of the likeliest label, also when uncertain."""
    probabilities: dict[Label, Share]
    """Smoothed probability of every label the model knows; they sum to 1 but for rounding."""
    box: Box
    """The face: left, top, right, bottom as shares of the frame, cut at its edges."""
    face_size_px: Count
    """Shorter side of the face's box in pixels of the frame."""
    duration_s: Seconds
    """Seconds since the track's first sight."""


class EventMessage(Payload):
    """Topic `cameras/<camera>/events`: a CloudEvent in structured JSON."""

    specversion: Literal["1.0"]
    """Version of CloudEvents."""
    id: Uuid
    """UUIDv7; a message delivered twice keeps it."""
    source: Annotated[str, Field(pattern=r"^/fer/[a-z0-9-]+/cameras/[a-z0-9-]+$")]
    """`/fer/<device>/cameras/<camera>`."""
    type: Literal["fer.track.started.v1", "fer.track.updated.v1", "fer.track.ended.v1"]
    """updated comes with a change of label, else every few seconds."""
    subject: Annotated[str, Field(pattern=r"^[0-9]+$")]
    """The track's id, never used twice in a session."""
    time: AwareDatetime
    """When the frame was captured."""
    recordedtime: AwareDatetime
    """When the agent made the event."""
    sequence: Annotated[str, Field(pattern=r"^[0-9]{16}$")]
    """Rises by one per source within a session; a gap means loss. Padded, so it sorts as text."""
    datacontenttype: Literal["application/json"]
    """What `data` is."""
    dataschema: Literal["urn:fer-agent:schema:v1:event-data"]
    """Name of the schema of `data`."""
    data: EventData
    """What was seen."""

    def again(self) -> EventMessage:
        """Return the same event, marked as sent late or a second time."""
        if self.data.replayed:
            return self
        return self.model_copy(update={"data": self.data.model_copy(update={"replayed": True})})


class FaceState(Payload):
    """One face in view."""

    track_id: Annotated[str, Field(pattern=r"^[0-9]+$")]
    """The `subject` of its events."""
    emotion: Word
    """The smoothed label, or uncertain."""
    confidence: Share
    """Smoothed probability of the likeliest label."""
    box: Box
    """Left, top, right, bottom as shares of the frame, as of the last event."""
    since: AwareDatetime
    """The track's first sight."""


class StatePayload(Payload):
    """Topic `cameras/<camera>/state`: the faces in view."""

    session: Uuid
    """The agent's session."""
    time: AwareDatetime
    """When this was written."""
    dominant: DominantWord
    """The same word as on topic `emotion`."""
    faces: tuple[FaceState, ...]
    """Faces in view, oldest track first."""


class AlertPayload(Payload):
    """Topic `alerts/<id>`: a fault that stands; an empty payload clears it."""

    text: str
    """What is wrong and what to do, for people."""
    session: Uuid
    """The agent's session."""
    since: AwareDatetime
    """When it was raised."""
