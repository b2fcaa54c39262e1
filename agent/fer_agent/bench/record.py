"""The result of a bench, as the models of its JSON and of its schema.

Within version 1 fields are only added, and readers ignore unknown ones. Docstrings are descriptions
in the schema. A missing figure is null, never zero.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

SCHEMA_VERSION: Final = 1

Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0.0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Stage = Literal["capture", "detect", "track", "crop", "classify", "smooth", "publish"]
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)


class ResultPart(BaseModel):
    """Base of all parts."""

    model_config = ConfigDict(
        frozen=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,
        extra="ignore",
        from_attributes=True,
    )


class Durations(ResultPart):
    """Durations of the measured passes in milliseconds; percentiles are nearest-rank."""

    n: Annotated[int, Field(ge=1)]
    """Measured passes."""
    mean: Amount
    min: Amount
    p50: Amount
    p95: Amount
    p99: Amount
    max: Amount

    @property
    def fps(self) -> float:
        """Passes a second, one after the other."""
        return 1000 / self.mean if self.mean else 0.0


class Memory(ResultPart):
    """Memory of the process that measured nothing else, at its end, in bytes."""

    resident: Count | None
    """All pages in memory, those shared with other processes included."""
    private_dirty: Count | None
    """Pages that this process has written and has alone."""
    unique: Count | None
    """Pages that this process has alone, written or not: the unique set size."""
    peak_resident: Count | None
    """The most that was ever resident."""


class Problem(ResultPart):
    """The reason why something was not measured."""

    error: str
    """Class of the error."""
    message: str
    remedy: str
    exit_code: int


class Subject(ResultPart):
    """A network file on one runtime with one number of threads."""

    name: str
    """The model's name, or the file's."""
    role: Literal["emotion-model", "face-detector", "other"]
    precision: Literal["fp32", "fp16", "int8"] | None = None
    """As in the manifest; null for a file without one."""
    version: str | None = None
    file: str
    """File name, without its folder."""
    sha256: Sha256
    bytes: Count
    """Size of the file."""
    macs: Count | None = None
    """Multiply-accumulates of one pass, where the manifest says."""
    runtime: str
    threads: Annotated[int, Field(ge=1)]

    @property
    def title(self) -> str:
        """Name and precision, for a table."""
        return f"{self.name} {self.precision}" if self.precision else self.name


class NetworkResult(ResultPart):
    """One network alone: its bare pass, one input at a time."""

    subject: Subject
    input: str | None = None
    """Element type and shape that were fed."""
    load_ms: Amount | None = None
    """From the file to a session that is ready."""
    first_ms: Amount | None = None
    """The first pass, which also allocates."""
    latency_ms: Durations | None = None
    """Null when nothing was measured."""
    fps: Amount | None = None
    """Passes a second."""
    memory: Memory | None = None
    problem: Problem | None = None


class PipelineResult(ResultPart):
    """Whole frames through the agent's stages, into an outbox without a broker."""

    clip: str
    """`scene` for the drawn one, else the file's name."""
    picture: str | None = None
    """Width and height of the pictures."""
    faces: Count | None
    """Faces drawn into the scene; null for a clip."""
    faces_seen: Amount | None = None
    """Faces tracked in a frame, on average."""
    detector: str | None = None
    """The face detector: yunet or haar."""
    detector_note: str | None = None
    """Why the Haar cascade ran instead of YuNet."""
    frame_ms: Durations | None = None
    """A frame from detector to outbox; capture runs beside it, on another thread."""
    fps: Amount | None = None
    """Frames a second end to end, capture included."""
    cpu_share: Amount | None = None
    """Processor time of the whole process per second, in cores."""
    stages_ms: dict[Stage, Durations] = Field(default_factory=dict)
    """By stage; a stage that had nothing to do in the measured frames is missing."""
    memory: Memory | None = None
    problem: Problem | None = None


class SustainedSample(ResultPart):
    """A few seconds of a long run."""

    at_s: Amount
    """Seconds from the start to the end of this piece."""
    fps: Amount
    temperature_c: float | None = None
    clock_mhz: Amount | None = None
    throttled: bool | None = None


class Sustained(ResultPart):
    """The pipeline for minutes on end."""

    minutes: Amount
    """As asked for; `samples` show how long it really was."""
    faces: Count
    samples: tuple[SustainedSample, ...] = ()
    problem: Problem | None = None


class BoardReading(ResultPart):
    """Temperatures, clocks and throttling at one moment, as `fer_agent.system.board.BoardState`."""

    temperature_c: float | None = None
    sensors_c: dict[str, float] | None = None
    clock_mhz: Amount | None = None
    clock_max_mhz: Amount | None = None
    governor: str | None = None
    gpu_clock_mhz: Amount | None = None
    power_mode: str | None = None
    throttled: bool | None = None
    throttled_since_boot: bool | None = None
    throttle_reasons: tuple[str, ...] = ()
    throttle_events: Count | None = None


class Machine(ResultPart):
    """The machine of the measurement."""

    board: str
    processor: str | None
    """Model name of the processor."""
    architecture: str
    cores: Annotated[int, Field(ge=1)]
    """Cores that this process may use."""
    memory_bytes: Count | None
    os: str
    python: str
    runtimes: dict[str, str]
    """Runtimes that are here, with their versions."""
    load_before: Amount | None
    """Processes that wanted a core in the minute before, on average; other work spoils figures."""


class ProtocolRecord(ResultPart):
    """The protocol of the measurement."""

    batch: Literal[1] = 1
    warmup: Count
    """Passes that do not count."""
    runs: Count
    """Passes that count."""
    frames: Count
    """Frames that count, of the pipeline."""


class PaperRow(ResultPart):
    """The MicroExpNet paper's figures for a board, and why ours cannot be compared with them."""

    board: str
    fps: Amount
    latency_ms: Amount
    memory_mb: Amount
    same_board: bool
    """True if this machine is that board."""
    not_comparable: tuple[str, ...]


class BenchReport(ResultPart):
    """One run of `fer-agent bench`."""

    schema_version: Literal[1] = SCHEMA_VERSION
    kind: Literal["fer-agent-bench"] = "fer-agent-bench"
    agent_version: str
    started: AwareDatetime
    finished: AwareDatetime
    interrupted: bool
    """True if it was ended early; it has the results until then."""
    protocol: ProtocolRecord
    machine: Machine
    before: BoardReading
    after: BoardReading
    throttled_during: bool | None
    """True if the board throttled itself meanwhile; null where unknown."""
    networks: tuple[NetworkResult, ...] = ()
    pipelines: tuple[PipelineResult, ...] = ()
    sustained: Sustained | None = None
    paper: tuple[PaperRow, ...] = ()

    def problems(self) -> list[Problem]:
        """Return the problems of all parts."""
        found = [one.problem for one in self.networks] + [one.problem for one in self.pipelines]
        if self.sustained is not None:
            found.append(self.sustained.problem)
        return [problem for problem in found if problem is not None]

    def has_figures(self) -> bool:
        """Return whether anything was measured."""
        return (
            any(one.latency_ms is not None for one in self.networks)
            or any(one.frame_ms is not None for one in self.pipelines)
            or (self.sustained is not None and bool(self.sustained.samples))
        )


class ComparedFigure(ResultPart):
    """One figure in two results."""

    what: str
    first: Amount
    second: Amount
    ratio: Amount
    """Second over first; below 1 is faster or smaller."""


class Comparison(ResultPart):
    """Two results side by side."""

    schema_version: Literal[1] = SCHEMA_VERSION
    kind: Literal["fer-agent-bench-comparison"] = "fer-agent-bench-comparison"
    first: str
    second: str
    differences: tuple[str, ...]
    """Differences between the two runs that make the ratios less reliable."""
    figures: tuple[ComparedFigure, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
