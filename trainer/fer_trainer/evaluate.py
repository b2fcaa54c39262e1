"""Evaluation of a checkpoint, a model folder or a targets file on a split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fer_agent.errors import UsageError
from fer_agent.inference.onnx import OnnxSession
from fer_agent.models.manifest import Calibration, read_manifest
from fer_agent.models.store import StoredModel
from fer_agent.vision.classifier import CropClassifier
from fer_trainer import checkpoint
from fer_trainer.data.duplicates import also_in_training
from fer_trainer.data.faceset import Split
from fer_trainer.deploy import network_of
from fer_trainer.errors import CheckpointError, DataError, ProtocolError
from fer_trainer.fabric import best_device
from fer_trainer.inference import predict
from fer_trainer.metrics import (
    PredictionFigures,
    abstain_threshold,
    figures,
    fit_temperature,
    probabilities,
)
from fer_trainer.protocols import answers
from fer_trainer.recipe import DataSection
from fer_trainer.targets import read_targets

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fer_agent.models.manifest import Manifest
    from fer_trainer.data.faceset import BoolArray, FaceSet, Float32Array, UInt8Array
    from fer_trainer.protocols import Predictor, Protocol
    from fer_trainer.targets import SoftTargets

_BATCH = 256


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The figures of one subject on one split.

    Attributes:
        subject: the run or model.
        dataset: name of the data.
        split: `valid` or `test`.
        protocol: which crops.
        temperature: logits were divided by it.
        whole: over the whole split.
        without_trained: without the images that are also in training.
    """

    subject: str
    dataset: str
    split: str
    protocol: Protocol
    temperature: float
    whole: PredictionFigures
    without_trained: PredictionFigures

    def as_json(self) -> dict[str, Any]:
        """Make a JSON tree."""
        return {
            "subject": self.subject,
            "dataset": self.dataset,
            "split": self.split,
            "protocol": self.protocol,
            "temperature": self.temperature,
            **self.whole.as_json(),
            "without_trained": self.without_trained.as_json(),
        }


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationSubject:
    """A run, model or targets file to evaluate.

    Attributes:
        name: for the report.
        labels: in output order.
        selected_on: the split that chose it.
        data: which targets it was trained on, where that is known.
        path: the run folder, checkpoint, model folder or targets file.
        stored: the targets file's content.
    """

    name: str
    labels: tuple[str, ...]
    selected_on: str
    data: DataSection
    path: Path
    stored: SoftTargets | None = None

    @property
    def is_model(self) -> bool:
        """True for a model folder, which the agent's own classifier evaluates."""
        return (self.path / "manifest.json").is_file()


def open_subject(path: Path) -> EvaluationSubject:
    """Look at a run folder, a checkpoint, a model folder or a targets file.

    Raises:
        CheckpointError, ModelError: it is none of them.
    """
    if (path / "manifest.json").is_file():
        manifest = read_manifest(path / "manifest.json")
        # `release` refuses any other choice than on the validation split.
        return EvaluationSubject(manifest.name, manifest.labels, "valid", data_of(manifest), path)
    if path.suffix == ".npz":
        stored = read_targets(path)
        data = stored.data.model_copy(update={"votes_share": 0.0})
        return EvaluationSubject(path.stem, stored.labels, stored.selected_on, data, path, stored)
    state = checkpoint.load(checkpoint.best_of(path))
    # votes in the training labels change nothing in the other splits
    data = state.parsed_recipe.data.model_copy(update={"votes_share": 0.0})
    return EvaluationSubject(path.name, state.labels, state.selected_on, data, path)


def data_of(manifest: Manifest) -> DataSection:
    """Return the labels that a model is evaluated by: FER+'s where its figures are of those."""
    dataset, _, kind = manifest.metrics[0].dataset.partition(" ")
    return DataSection.model_validate({"targets": kind} if dataset == "FER+" else {})


def evaluate(
    subject: EvaluationSubject,
    faces: FaceSet,
    *,
    split: Split = Split.TEST,
    protocol: Protocol = "single",
    precision: str = "fp32",
) -> Evaluation:
    """Evaluate a checkpoint, a model or a targets file.

    The temperature and the abstain threshold of a checkpoint or a targets file are fitted on the
    split that chose it; a model's are in its manifest.

    Args:
        subject: from `open_subject`.
        faces: the data, all splits.
        split: which images.
        protocol: which crops of them.
        precision: of a model's file.

    Raises:
        ProtocolError: the split chose the checkpoint.
        CheckpointError: the data has other classes.
        DataError: the split is empty.
        UsageError: a targets file is asked for other crops than single ones.
        ModelError: the model's files are not what the manifest says.
    """
    name = split.name.lower()
    if subject.selected_on == name:
        raise ProtocolError(
            f"{subject.name} was chosen on {name}, so a figure on {name} would flatter it",
            remedy="report another split",
        )
    if subject.labels != faces.labels:
        raise CheckpointError(
            f"{subject.name} knows {', '.join(subject.labels)}, "
            f"but the data has {', '.join(faces.labels)}",
            remedy="use the data, votes and label map it was trained with",
        )
    part = faces.only(split)
    if not len(part):
        raise DataError(f"{faces.name} has no image for {name}", remedy="report another split")
    if subject.stored is not None:
        calibration, probs = _from_file(subject.stored, faces, split, protocol)
    else:
        calibration, predictor = (
            _agents_classifier(subject.path, precision)
            if subject.is_model
            else _networks(subject, faces)
        )
        probs = answers(predictor, part.images, protocol)
    apart = ~also_in_training(faces)[faces.where(split)]
    if not apart.any():
        apart = np.ones_like(apart)

    def measure(these: BoolArray) -> PredictionFigures:
        return figures(
            probs[these],
            part.hard_labels[these],
            faces.labels,
            abstain_below=calibration.abstain_below,
        )

    return Evaluation(
        subject=subject.name,
        dataset=faces.name,
        split=name,
        protocol=protocol,
        temperature=calibration.temperature,
        whole=measure(np.ones_like(apart)),
        without_trained=measure(apart),
    )


def over_seeds(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Give mean and sample deviation of accuracy and macro-F1 over several runs."""
    accuracy = np.array([one.whole.accuracy for one in evaluations])
    macro_f1 = np.array([one.whole.macro_f1 for one in evaluations])
    freedom = min(1, len(evaluations) - 1)
    return {
        "runs": len(evaluations),
        "accuracy_mean": float(accuracy.mean()),
        "accuracy_deviation": float(accuracy.std(ddof=freedom)),
        "macro_f1_mean": float(macro_f1.mean()),
        "macro_f1_deviation": float(macro_f1.std(ddof=freedom)),
    }


def _agents_classifier(folder: Path, precision: str) -> tuple[Calibration, Predictor]:
    manifest = read_manifest(folder / "manifest.json")
    path = StoredModel(folder=folder, manifest=manifest).verified_file(precision)
    classifier = CropClassifier(OnnxSession(path, threads=2), manifest)

    def probs(crops: UInt8Array) -> Float32Array:
        starts = range(0, len(crops), _BATCH)
        batches = [np.array(crops[start : start + _BATCH])[:, np.newaxis] for start in starts]
        return np.concatenate([classifier.probs(batch) for batch in batches])

    return manifest.calibration, probs


def _from_file(
    stored: SoftTargets, faces: FaceSet, split: Split, protocol: Protocol
) -> tuple[Calibration, Float32Array]:
    if protocol != "single":
        raise UsageError(
            f"a targets file holds answers to single crops, not {protocol}",
            remedy="leave --protocol out, or judge the teacher's runs",
        )
    chooser = Split.parse(stored.selected_on)
    calibration = _fitted(stored.logits_of(faces, chooser), faces.only(chooser))
    logits = stored.logits_of(faces, split)
    return calibration, probabilities(logits, calibration.temperature)


def _fitted(logits: Float32Array, chooser: FaceSet) -> Calibration:
    temperature = round(fit_temperature(logits, chooser.hard_labels), 4)
    threshold = abstain_threshold(probabilities(logits, temperature))
    return Calibration(temperature=temperature, abstain_below=threshold)


def _networks(subject: EvaluationSubject, faces: FaceSet) -> tuple[Calibration, Predictor]:
    device = best_device()
    state = checkpoint.load(checkpoint.best_of(subject.path))
    network = network_of(state).to(device).to(memory_format=torch.channels_last)
    chooser = faces.only(Split.parse(subject.selected_on))
    calibration = _fitted(predict(network, chooser.images, device).numpy(), chooser)

    def probs(crops: UInt8Array) -> Float32Array:
        logits = predict(network, crops, device).numpy()
        return probabilities(logits, calibration.temperature)

    return calibration, probs
