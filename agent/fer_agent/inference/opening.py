"""Networks on the runtimes chosen for them; no frame waits for an engine that is being built."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from fer_agent.errors import AgentError, ConfigError, UnavailableError
from fer_agent.inference import available, prepared
from fer_agent.inference.engines import Network
from fer_agent.inference.golden import Golden
from fer_agent.inference.onnx import OnnxSession
from fer_agent.inference.setting import Setting
from fer_agent.inference.standby import StandbySession
from fer_agent.models.manifest import ModelFile
from fer_agent.models.store import StoredModel, file_sha256
from fer_agent.vision.ports import InferenceSession

logger = logging.getLogger(__name__)

_PROGRESS_STEP = 0.1
"""Share of a build between two lines of the log."""


def file_of(model: StoredModel, setting: Setting) -> ModelFile:
    """Return the file of a model that runs with a setting, whatever a runtime makes of it.

    Raises:
        ModelContractError: the model has no such file.
    """
    precision: str = setting.precision
    if setting.runtime == "tensorrt":
        from fer_agent.inference import engines, tensorrt  # noqa: PLC0415  seldom needed

        precision = engines.source_precision(precision, tensorrt.version())
    return model.manifest.file(precision)


def open_model(
    model: StoredModel, setting: Setting, store: Path, answers: Golden
) -> InferenceSession:
    """Load a model and wait until it runs, if that takes building an engine.

    Args:
        model: what to load.
        setting: which of its files, on what.
        store: where engines are kept.
        answers: golden inputs that an engine has to agree with.

    Raises:
        ModelError: the file is missing, damaged, or not the manifest's.
        UsageError, UnavailableError: the runtime is not here.
        InferenceError: the runtime does not do what it was asked for.
    """
    available.find(setting.runtime)
    path = model.verified_file(file_of(model, setting).precision)
    if setting.runtime == "onnx":
        return OnnxSession(path, threads=setting.threads)
    from fer_agent.inference import engines  # noqa: PLC0415  seldom needed

    return engines.open_engine(_model_network(model, path, setting, answers), store)


class Opener:
    """Opens the networks of a running agent.

    Args:
        store: where engines and prepared networks are kept.
        wait: whether to wait for engines; else ONNX Runtime serves until they are there.
        on_runtime: called with the runtime's name when the classifier runs on another than ONNX
            Runtime, perhaps from another thread.
    """

    def __init__(
        self,
        store: Path,
        *,
        wait: bool = False,
        on_runtime: Callable[[str], None] = lambda _runtime: None,
    ) -> None:
        self.store = store
        self._wait = wait
        self._on_runtime = on_runtime

    def model(self, model: StoredModel, setting: Setting) -> InferenceSession:
        """Load a model.

        Raises:
            ModelError: the file is missing, damaged, or not the manifest's.
            ConfigError: the runtime that the configuration names is not here.
            InferenceError: only with `wait`: there is no engine for this board.
        """
        _check_runtime(setting.runtime, "classifier")
        file = file_of(model, setting)
        path = model.verified_file(file.precision)
        plain = prepared.open_session(path, file.sha256, self.store, threads=setting.threads)
        if setting.runtime == "onnx":
            return plain
        from fer_agent.inference import golden  # noqa: PLC0415  likewise

        def network() -> Network:
            return _model_network(model, path, setting, golden.of_model(model))

        return self._engine(
            plain, network, model.manifest.name, partial(self._on_runtime, setting.runtime)
        )

    def detector(
        self,
        path: Path,
        *,
        runtime: Literal["onnx", "tensorrt"],
        threads: int,
        long_side: int,
    ) -> InferenceSession:
        """Load YuNet's graph.

        Args:
            path: its file.
            runtime: what runs it.
            threads: threads inside one run on ONNX Runtime.
            long_side: of its input, in pixels.

        Raises:
            ModelError, ConfigError, InferenceError: as `model`.
        """
        _check_runtime(runtime, "detector")
        sha256 = file_sha256(path)
        plain = prepared.open_session(path, sha256, self.store, threads=threads)
        if runtime == "onnx":
            return plain
        return self._engine(
            plain, lambda: _detector_network(path, plain, long_side), path.stem, lambda: None
        )

    def _engine(
        self,
        plain: OnnxSession,
        network: Callable[[], Network],
        title: str,
        on_ready: Callable[[], None],
    ) -> InferenceSession:
        from fer_agent.inference import engines  # noqa: PLC0415  seldom needed

        if self._wait:
            session = engines.open_engine(network(), self.store)
            on_ready()
            return session
        served = StandbySession(plain)

        def work() -> None:
            try:
                faster = engines.open_engine(network(), self.store, _Progress(title))
            except AgentError as error:
                logger.warning("ONNX Runtime goes on with %s: %s; %s", title, error, error.remedy)
            except Exception:
                logger.exception("ONNX Runtime goes on with %s", title)
            else:
                served.upgrade(faster)
                on_ready()

        # A daemon, so that an agent that is asked to end does so; the build is ended with it.
        threading.Thread(target=work, name=f"engine-{title}", daemon=True).start()
        return served


class _Progress:
    """Logs how far a build is, now and then."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._next = _PROGRESS_STEP

    def __call__(self, share: float) -> None:
        if share >= self._next:
            self._next = share + _PROGRESS_STEP
            logger.info("the engine of %s is built to %.0f %%", self._title, 100 * share)


def _check_runtime(name: str, section: str) -> None:
    try:
        available.find(name)
    except UnavailableError as error:
        raise ConfigError(
            f"{section}.runtime: {error}",
            remedy=f"set `{section}.runtime` to auto, or {error.remedy}",
        ) from error


def _model_network(model: StoredModel, path: Path, setting: Setting, answers: Golden) -> Network:
    from fer_agent.inference import engines  # noqa: PLC0415  seldom needed

    precision: Literal["fp32", "fp16"] = "fp16" if setting.precision == "fp16" else "fp32"
    profile = engines.rows_profile((1, *model.manifest.input.size))
    return engines.Network(path, precision, profile, answers)


def _detector_network(path: Path, plain: OnnxSession, long_side: int) -> Network:
    """Return YuNet's network: one picture of any shape up to the configured size."""
    from fer_agent.inference import engines, golden, golden_pictures  # noqa: PLC0415  likewise
    from fer_agent.inference.engine_file import Profile  # noqa: PLC0415  likewise

    picture = golden_pictures.scene(long_side)
    most = max(long_side, engines.LEAST_DETECTOR_SIDE)
    profile = Profile(least=(1, 3, 32, 32), usual=picture.shape, most=(1, 3, most, most))
    return engines.Network(path, "fp32", profile, golden.record(plain, picture))
