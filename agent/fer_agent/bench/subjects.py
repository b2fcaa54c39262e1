"""The networks to measure: shipped models, YuNet's file, any ONNX file, on each runtime here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fer_agent.bench.record import Subject
from fer_agent.config.model import AgentConfig
from fer_agent.errors import DownloadError, ModelFileError, UsageError
from fer_agent.inference import available
from fer_agent.models.store import (
    StoredModel,
    file_sha256,
    find_model,
    model_names,
    read_model,
    shipped_folder,
)
from fer_agent.updates import detector_file

DETECTOR_NAME: Final = "yunet"
_FRAME_SIZE: Final = (640, 480)
"""Camera picture for which YuNet's input is made, width and height in pixels."""

_FEW_CORES: Final = 4
"""Up to so many cores every number of threads is tried, above it powers of two and all."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A network to measure.

    Attributes:
        subject: its description in the result.
        path: the file.
        shape: of one input; None for the model's own.
    """

    subject: Subject
    path: Path
    shape: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class SubjectChoice:
    """The user's choice; empty tuples stand for the defaults.

    Attributes:
        models: names of models, `yunet`, or paths of ONNX files and model folders.
        runtimes: names of runtimes.
        threads: numbers of threads.
        shape: input shape of ONNX files that leave theirs open.
    """

    models: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()
    threads: tuple[int, ...] = ()
    shape: tuple[int, ...] | None = None


def candidates(config: AgentConfig, choice: SubjectChoice) -> list[Candidate]:
    """Return everything to measure, in the order in which it is shown.

    Raises:
        UsageError: an unknown runtime or model.
        UnavailableError: a runtime that is not on this machine.
        ModelError: a model asked for is damaged.
    """
    runtimes = choice.runtimes or available.available()
    found = []
    for file in _files(config, choice):
        for name in runtimes:
            if not _runs_on(name, file.subject.precision):
                continue
            counts = sorted(set(choice.threads)) or thread_counts()
            for threads in counts if available.find(name).threaded else (1,):
                placed = {"runtime": name, "threads": threads}
                subject = file.subject.model_copy(update=placed)
                found.append(Candidate(subject, file.path, file.shape))
    return found


def _runs_on(runtime: str, precision: str | None) -> bool:
    """Return whether a runtime takes files of a precision.

    TensorRT wants INT8 scaled symmetrically, ONNX Runtime's files are not.

    Raises:
        UsageError, UnavailableError: as in `candidates`.
    """
    available.find(runtime)
    return runtime != "tensorrt" or precision != "int8"


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def thread_counts(cores: int | None = None) -> tuple[int, ...]:
    """Return the numbers of threads worth trying, from one to all cores."""
    cores = cores or usable_cores()
    if cores <= _FEW_CORES:
        return tuple(range(1, cores + 1))
    powers = [1 << power for power in range(cores.bit_length()) if 1 << power < cores]
    return (*powers, cores)


def detector_path(config: AgentConfig) -> Path:
    """Return YuNet's file without fetching it.

    Raises:
        DownloadError: it is not there.
        ModelFileError: the configuration names a file that is not there.
    """
    offline = config.detector.model_copy(update={"download": False})
    return detector_file.locate(offline, config.store)


def _files(config: AgentConfig, choice: SubjectChoice) -> Iterator[Candidate]:
    if choice.models:
        for name in choice.models:
            yield from _named(name, config, choice.shape)
        return
    shipped = {path.parent.name for path in shipped_folder().glob("*/manifest.json")}
    for name in sorted(shipped | {config.classifier.model}):
        yield from _of_model(find_model(name, config.store))
    try:
        yield _detector(config, detector_path(config))
    except DownloadError:
        return  # not fetched yet: the pipeline's result notes that the Haar cascade stands in


def _named(name: str, config: AgentConfig, shape: tuple[int, ...] | None) -> Iterator[Candidate]:
    path = Path(name)
    if path.is_dir() and (path / "manifest.json").is_file():
        yield from _of_model(read_model(path))
    elif path.is_file():
        yield Candidate(_subject(path, name=path.stem, role="other"), path, shape)
    elif name == DETECTOR_NAME:
        yield _detector(config, detector_path(config))
    elif name in model_names(config.store):
        yield from _of_model(find_model(name, config.store))
    elif path.suffix == ".onnx" or len(path.parts) > 1:
        raise ModelFileError(
            f"no model file at {path}", remedy="check the path, or name a model of the store"
        )
    else:
        there = ", ".join([*model_names(config.store), DETECTOR_NAME])
        raise UsageError(
            f"there is no model named {name!r}",
            remedy=f"use the path of an ONNX file, or one of: {there}",
        )


def _of_model(model: StoredModel) -> Iterator[Candidate]:
    manifest = model.manifest
    for entry in manifest.files:
        path = model.verified_file(entry.precision)
        subject = Subject(
            name=manifest.name,
            role="emotion-model",
            precision=entry.precision,
            version=manifest.version,
            file=entry.path,
            sha256=entry.sha256,
            bytes=entry.bytes,
            macs=manifest.macs,
            runtime="onnx",
            threads=1,
        )
        yield Candidate(subject, path, (1, 1, *manifest.input.size))


def _detector(config: AgentConfig, path: Path) -> Candidate:
    from fer_agent.detector.letterbox import Letterbox  # noqa: PLC0415  loads OpenCV

    width, height = Letterbox(_FRAME_SIZE, config.detector.long_side).input_size
    subject = _subject(path, name=DETECTOR_NAME, role="face-detector")
    return Candidate(subject.model_copy(update={"precision": "fp32"}), path, (1, 3, height, width))


def _subject(path: Path, *, name: str, role: str) -> Subject:
    return Subject.model_validate(
        {
            "name": name,
            "role": role,
            "file": path.name,
            "sha256": file_sha256(path),
            "bytes": path.stat().st_size,
            "runtime": "onnx",
            "threads": 1,
        }
    )


def parse_shape(text: str | None) -> tuple[int, ...] | None:
    """Read an input shape such as `1,3,224,224`; None stays None.

    Raises:
        UsageError: something else than lengths of at least one.
    """
    if text is None:
        return None
    parts = text.replace("x", ",").split(",")
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        raise UsageError(
            f"{text!r} is no input shape", remedy="write its lengths, such as 1,3,224,224"
        )
    return tuple(int(part) for part in parts)
