"""Sessions on TensorRT: a network's stored engine, or one that is built first."""

from __future__ import annotations

import atexit
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from fer_agent.errors import InferenceError, ModelContractError
from fer_agent.inference import engine_file, golden, tensorrt
from fer_agent.inference.cuda import Gpu, cuda_thread
from fer_agent.inference.engine_build import STRONGLY_TYPED_SINCE, EngineTask, flags_of
from fer_agent.inference.engine_file import EngineKey, Profile
from fer_agent.inference.golden import Golden
from fer_agent.inference.noise import make_input
from fer_agent.inference.onnx import OnnxSession
from fer_agent.inference.request import LoadRequest
from fer_agent.inference.tensorrt import TensorRtSession
from fer_agent.models.store import file_sha256
from fer_agent.system import child_process, durable

logger = logging.getLogger(__name__)

MOST_FACES: Final = 8
"""Largest batch an engine runs at once; more faces run in parts."""

LEAST_DETECTOR_SIDE: Final = 96
"""Of an engine's largest picture: the detector checks its model with one 96 pixels wide."""

_MODULE: Final = "fer_agent.inference.engine_build"
_LONGEST_BUILD_S: Final = 3600.0


class EngineError(InferenceError):
    """A network has no engine on this board; ONNX Runtime runs it."""


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """The source of an engine.

    Attributes:
        path: the ONNX file.
        precision: of the engine.
        profile: shapes of its input.
        answers: golden inputs that the engine has to agree with.
    """

    path: Path
    precision: Literal["fp32", "fp16"]
    profile: Profile
    answers: Golden


def rows_profile(row: tuple[int, ...], usual: int = 1, most: int = MOST_FACES) -> Profile:
    """Return the profile of a network with an open number of rows, each of one shape."""
    return Profile(least=(1, *row), usual=(usual, *row), most=(most, *row))


def any_network(request: LoadRequest) -> Network:
    """Return a network with noise as golden inputs, answered by ONNX Runtime.

    Raises:
        ModelError: the file cannot be loaded.
        ModelContractError: it leaves more of its input open than the number of rows, and the
            request does not give its length.
    """
    plain = OnnxSession(request.path)
    noise = make_input(request.path, plain.input_dtype, request.shape or plain.input_shape)
    if isinstance(plain.input_shape[0], int) or noise.shape[0] != 1:
        profile = Profile(least=noise.shape, usual=noise.shape, most=noise.shape)
    else:
        profile = rows_profile(noise.shape[1:])
    answers = golden.record(plain, noise)
    return Network(request.path, request.precision, profile, answers)


def source_precision(precision: str, version: tuple[int, ...]) -> str:
    """Return the precision of the file that an engine of some precision is built from.

    Before 10.12 TensorRT itself makes FP16 of an FP32 graph, afterwards the graph has to be FP16.
    """
    return precision if version >= STRONGLY_TYPED_SINCE else "fp32"


def open_engine(
    network: Network, store: Path, on_progress: Callable[[float], None] = lambda _share: None
) -> TensorRtSession:
    """Load a network's engine, and build it first if there is none for this board.

    Two processes that need the same engine build it once. An interrupted build leaves nothing.

    Args:
        network: the network.
        store: the model store; engines are in its `.state/engines`.
        on_progress: called with the share that is built, in [0, 1].

    Raises:
        UnavailableError: no GPU, or its libraries are not there.
        EngineError: it cannot be built, or does not agree with ONNX Runtime.
        TemporaryError: the disk is full.
        ConfigError: the store cannot be written.
    """
    thread = cuda_thread()
    key = key_of(network, thread.gpu)
    path = engine_file.path_of(store, key)
    try:
        with durable.locked(path.with_suffix(".lock"), wait=True):
            stored = engine_file.read(path, key)
            if stored is None:
                logger.info(
                    "building an engine of %s for %s, %s; this takes minutes",
                    network.path.name,
                    key.gpu,
                    key.precision,
                )
                began_s = time.monotonic()
                _build(network, key, path, on_progress)
                stored = engine_file.read(path, key)
                logger.info("built %s in %.0f s", path, time.monotonic() - began_s)
    except OSError as error:
        raise durable.refused(error, store) from error
    if stored is None:
        raise EngineError(
            f"the engine that was just built is not at {path}", remedy="please report this"
        )
    header, plan = stored
    if header.refused:
        raise EngineError(
            f"no engine of {network.path.name} on this board: {header.refused}",
            remedy=f"use another precision, or delete {path} to have it tried again",
        )
    session = TensorRtSession(plan, str(path), thread)
    try:
        golden.check(session, network.answers, golden.TOLERANCES[network.precision])
    except ModelContractError as error:
        session.close()
        raise EngineError(
            f"{path} does not compute what ONNX Runtime does: {error}",
            remedy=f"delete {path} to have it built again",
        ) from error
    logger.info("loaded %s on TensorRT %s, %s", path, key.tensorrt, key.gpu)
    return session


def key_of(network: Network, gpu: Gpu) -> EngineKey:
    """Return everything the engine of a network depends on, here and now."""
    version = tensorrt.version()
    return EngineKey(
        model_sha256=file_sha256(network.path),
        precision=network.precision,
        profile=network.profile,
        flags=flags_of(version, network.precision),
        tensorrt=".".join(map(str, version)),
        cuda=gpu.cuda,
        gpu=gpu.name,
        compute_capability=gpu.compute_capability,
    )


def _build(
    network: Network, key: EngineKey, path: Path, on_progress: Callable[[float], None]
) -> None:
    """Let a child process build the engine and write its file.

    Raises:
        EngineError: it did not; the message has its reason, or how it ended.
    """
    with tempfile.TemporaryDirectory(prefix="fer-agent-") as folder:
        answers = Path(folder) / "golden.npz"
        answers.write_bytes(golden.encode(network.answers))
        task = EngineTask(network=network.path, answers=answers, path=path, key=key)
        said, returncode = _converse(task, on_progress)
    if said.get("written"):
        return
    if "problem" in said:
        raise EngineError(said["problem"], remedy=said["remedy"])
    raise EngineError(
        f"the process that built an engine of {network.path.name} ended "
        f"{child_process.how_it_ended(returncode)}",
        remedy="see its words in the log; if memory was short, close other programs",
    )


def _converse(task: EngineTask, on_progress: Callable[[float], None]) -> tuple[dict[str, Any], int]:
    """Run the building process; return its last line, which may be empty, and its exit status."""
    said: dict[str, Any] = {}
    with subprocess.Popen(  # noqa: S603  our own interpreter and module
        [sys.executable, "-m", _MODULE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        # The end of this program does not wait for an engine.
        atexit.register(process.kill)
        try:
            if process.stdin is not None and process.stdout is not None:
                with suppress(BrokenPipeError):
                    process.stdin.write(task.model_dump_json() + "\n")
                    process.stdin.close()
                for line in process.stdout:
                    said = json.loads(line)
                    if "progress" in said:
                        on_progress(said["progress"])
            process.wait(_LONGEST_BUILD_S)
        except BaseException:
            process.kill()
            raise
        finally:
            atexit.unregister(process.kill)
    return said, process.returncode
