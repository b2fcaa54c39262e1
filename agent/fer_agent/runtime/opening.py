"""A model or a face detector on the runtime that was chosen for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_agent.runtime.onnx import OnnxSession

if TYPE_CHECKING:
    from pathlib import Path

    from fer_agent.golden import Golden
    from fer_agent.model_choice.setting import Setting
    from fer_agent.model_store import StoredModel
    from fer_agent.ports import InferenceSession


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
        InferenceError: the runtime does not do what it was asked for.
    """
    return OnnxSession(model.verified_file(setting.precision), threads=setting.threads)
