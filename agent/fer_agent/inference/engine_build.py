"""A child process that builds one engine: `python -m fer_agent.inference.engine_build`.

It reads a task as one line of JSON from stdin and writes JSON lines to stdout: `{"progress": 0.4}`
while it works, and at the end `{"written": true}` or `{"problem": ..., "remedy": ...}`. Building
takes minutes and hundreds of megabytes, and may crash.

The file is written at the very end, and only of an engine that agrees with ONNX Runtime on golden
inputs.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from fer_agent.errors import AgentError, InferenceError, ModelContractError
from fer_agent.inference import engine_file, golden, tensorrt
from fer_agent.inference.cuda import cuda_thread
from fer_agent.inference.engine_file import EngineKey, Header
from fer_agent.system import durable
from fer_agent.system.records import FrozenRecord

Tell = Callable[[dict[str, Any]], None]

_WORKSPACE_BYTES: Final = 256 << 20
"""Scratch memory of one layer; a Jetson shares it with everything else."""

STRONGLY_TYPED_SINCE: Final = (10, 12)
"""From here on types are those of the graph, and the builder's FP16 flag is deprecated; 11 has
none. Source: NVIDIA's TensorRT 10.12 release notes and guide from 10.x to 11.x."""

_EXPLICIT_BATCH_UNTIL: Final = (10,)
"""Before it the batch axis has to be asked for; later ones always have it."""

TF32_OFF: Final = "no-tf32"
FP16_FLAG: Final = "fp16-flag"
STRONGLY_TYPED: Final = "strongly-typed"


class EngineTask(FrozenRecord):
    """An engine to build."""

    network: Path
    """The ONNX file."""
    answers: Path
    """Golden inputs with ONNX Runtime's outputs, as `golden.encode` writes them."""
    path: Path
    """The engine's file."""
    key: EngineKey


def flags_of(version: tuple[int, ...], precision: str) -> tuple[str, ...]:
    """Return the builder's flags for a precision under a version of TensorRT."""
    flags = [TF32_OFF] if precision == "fp32" else []
    if version >= STRONGLY_TYPED_SINCE:
        flags.append(STRONGLY_TYPED)
    elif precision == "fp16":
        flags.append(FP16_FLAG)
    return tuple(flags)


def main() -> None:
    """Build the engine of the task on stdin."""
    # What libraries print goes to stderr: stdout carries nothing but our lines.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as lines:
        os.dup2(2, 1)

        def tell(content: dict[str, Any]) -> None:
            print(json.dumps(content), file=lines, flush=True)

        task = EngineTask.model_validate_json(sys.stdin.readline())
        try:
            _build(task, tell)
        except AgentError as error:
            tell({"problem": str(error), "remedy": error.remedy})
        except OSError as error:
            refused = durable.refused(error, task.path.parent)
            tell({"problem": str(refused), "remedy": refused.remedy})
        else:
            tell({"written": True})


def _build(task: EngineTask, tell: Tell) -> None:
    thread = cuda_thread()  # first, so that a missing GPU shows at once
    began_s = time.monotonic()
    plan = _serialized(task, tell)
    title = f"the engine of {task.network.name}"
    answers = golden.load(task.answers, least=1)
    session = tensorrt.TensorRtSession(plan, title, thread)
    agreement = golden.compare(session, answers)
    tolerance = golden.TOLERANCES[task.key.precision]
    header = Header(
        key=task.key,
        built=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        build_s=round(time.monotonic() - began_s, 1),
        largest_difference=agreement.largest_difference,
    )
    if not agreement.within(tolerance):
        error = golden.DisagreementError(agreement, tolerance)
        # Kept, so that not every start spends minutes on the same engine.
        refused = {"refused": str(error), "largest_difference": None}
        engine_file.write(task.path, header.model_copy(update=refused), b"")
        raise error
    engine_file.write(task.path, header, plan)


def _serialized(task: EngineTask, tell: Tell) -> bytes:
    """Build the engine and return its plan.

    Raises:
        ModelContractError: TensorRT cannot read the network.
        InferenceError: TensorRT cannot build it.
    """
    import tensorrt as trt  # noqa: PLC0415  gigabytes of libraries

    logger = tensorrt.trt_logger()
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(trt, task.key.flags))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(task.network.read_bytes()):
        said = "; ".join(parser.get_error(number).desc() for number in range(parser.num_errors))
        raise ModelContractError(
            f"TensorRT {trt.__version__} cannot read {task.network.name}: {said or 'no reason'}",
            remedy="run this model on onnx",
        )
    if network.num_inputs != 1:
        raise ModelContractError(
            f"{task.network.name} has {network.num_inputs} inputs, the agent feeds exactly one",
            remedy="use a model made for fer-agent, or export it again with `fer-train export`",
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
    if TF32_OFF in task.key.flags:
        # On by default, and ten bits of mantissa do not pass for FP32.
        config.clear_flag(trt.BuilderFlag.TF32)
    if FP16_FLAG in task.key.flags:
        config.set_flag(trt.BuilderFlag.FP16)
    profile, shapes = builder.create_optimization_profile(), task.key.profile
    profile.set_shape(network.get_input(0).name, shapes.least, shapes.usual, shapes.most)
    config.add_optimization_profile(profile)
    if hasattr(trt, "IProgressMonitor"):
        # Newer than 8.6. In a variable, because the config does not keep it alive.
        monitor = _monitor(trt, tell)
        config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise InferenceError(
            f"TensorRT {trt.__version__} cannot build an engine of {task.network.name}: "
            f"{logger.last_error or 'no reason'}",
            remedy="free some memory and try again, or run this model on onnx",
        )
    return bytes(plan)


def _network_flags(trt: Any, flags: tuple[str, ...]) -> int:
    kinds = trt.NetworkDefinitionCreationFlag
    if STRONGLY_TYPED in flags:
        return 1 << int(kinds.STRONGLY_TYPED)
    if tensorrt.version() < _EXPLICIT_BATCH_UNTIL:
        return 1 << int(kinds.EXPLICIT_BATCH)
    return 0


def _monitor(trt: Any, tell: Tell) -> Any:
    """Return a progress monitor that also ends the build when the parent process is gone."""
    parent = os.getppid()

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # no types come with it
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}
            self._top: str | None = None

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = max(1, num_steps)
            if parent_phase is None:
                self._top = phase_name

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name == self._top:
                tell({"progress": round(min(1.0, (step + 1) / self._steps[phase_name]), 3)})
            return os.getppid() == parent

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Monitor()


if __name__ == "__main__":
    main()
