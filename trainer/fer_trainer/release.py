"""Export of a checkpoint to a model folder with graph, manifest and card."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from fer_agent.errors import UsageError
from fer_agent.inference import golden, golden_pictures
from fer_agent.inference.onnx import OnnxSession
from fer_agent.models.emotions import EMOTIONS
from fer_agent.models.manifest import (
    Answered,
    Calibration,
    GoldenFile,
    Manifest,
    Metrics,
    ModelFile,
    ModelInput,
    Provenance,
    read_manifest,
)
from fer_agent.models.store import file_sha256
from fer_trainer import adjust, card, deploy, scaling
from fer_trainer.data.duplicates import also_in_training
from fer_trainer.data.faceset import SIZE_PX, Split
from fer_trainer.errors import CheckpointError, DataError, ProtocolError
from fer_trainer.files import write_bytes, write_text
from fer_trainer.metrics import (
    PredictionFigures,
    abstain_threshold,
    figures,
    fit_temperature,
    probabilities,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fer_trainer.checkpoint import Checkpoint
    from fer_trainer.data.faceset import FaceSet

SINGLE_CROP = "single crop"
WITHOUT_TRAINED = "single crop, without the images that also stand in training"
MAJORITY = "single crop, images with a majority as the authors of FER+ count it"
AGREED = "single crop, images where more than 5 of 10 voters agree"
SELECTION = "single crop, the split that chose the epoch"

_CHECKED_CROPS = 256


@dataclass(frozen=True, slots=True)
class ExportedModel:
    """An exported model folder.

    Attributes:
        folder: with `model.onnx`, `golden.npz`, `manifest.json` and `card.md`.
        manifest: as read back.
        difference: largest difference of a logit between PyTorch and the graph.
    """

    folder: Path
    manifest: Manifest
    difference: float


def release(
    checkpoint: Checkpoint,
    faces: FaceSet,
    folder: Path,
    *,
    version: str,
    others: Mapping[str, FaceSet] | None = None,
    draft: bool = False,
) -> ExportedModel:
    """Export a checkpoint.

    The temperature and the abstain threshold come from the validation split, the figures from the
    graph as written, once over the test split.

    Args:
        checkpoint: the run's best epoch.
        faces: the data it was trained on.
        folder: the model's folder; its name is the model's name.
        version: of the model, `x.y.z`.
        others: by protocol, other choices of the test images, for one more figure each.
        draft: of an unfinished run: only the validation split's figures, the test is not touched.

    Raises:
        CheckpointError: the data has other classes than the checkpoint.
        UsageError: the folder's name is no name of a model, or the version is none.
        ProtocolError: the epoch was chosen on the test split.
        DataError: a split is empty, or the agent does not know a class.
        FindingsError: the graph differs from PyTorch by more than 1e-4.
        StorageError: a file could not be written.
    """
    _check(checkpoint, faces)
    _check_words(folder.name, version, checkpoint.labels)
    network = deploy.network_of(checkpoint)
    graph = deploy.export_onnx(network)
    valid = faces.only(Split.VALID)
    difference = deploy.refuse_difference(network, graph, valid.images[:_CHECKED_CROPS])
    write_bytes(folder / "model.onnx", graph.SerializeToString())
    session = OnnxSession(folder / "model.onnx", threads=2)
    valid_logits = deploy.graph_logits(session, valid.images)
    temperature = round(fit_temperature(valid_logits, valid.hard_labels), 4)
    valid_probs = probabilities(valid_logits, temperature)
    abstain_below = abstain_threshold(valid_probs)

    def measure(part: FaceSet) -> PredictionFigures:
        probs = probabilities(deploy.graph_logits(session, part.images), temperature)
        return figures(probs, part.hard_labels, faces.labels, abstain_below=abstain_below)

    measured = [(SELECTION, measure(valid), "valid")]
    if not draft:
        test = faces.only(Split.TEST)
        repeated = also_in_training(faces)[faces.where(Split.TEST)]
        reported = [
            (SINGLE_CROP, measure(test), "test"),
            (WITHOUT_TRAINED, measure(test.take(~repeated)), "test"),
        ]
        reported += [
            (protocol, measure(other.only(Split.TEST)), "test")
            for protocol, other in (others or {}).items()
        ]
        measured = [*reported, *measured]
    manifest = Manifest(
        name=folder.name,
        version=version,
        task="facial-emotion",
        files=(model_file(folder / "model.onnx", "fp32"),),
        golden=write_golden(folder, session, (SIZE_PX, SIZE_PX)),
        input=ModelInput(
            shape=("N", 1, SIZE_PX, SIZE_PX), dtype="uint8", layout="NCHW", colour="gray"
        ),
        labels=checkpoint.labels,
        preprocessing="in-graph",
        calibration=Calibration(temperature=temperature, abstain_below=abstain_below),
        metrics=tuple(
            metrics_of(one, dataset=faces.name, split=split, protocol=protocol)
            for protocol, one, split in measured
        ),
        parameters=sum(p.numel() for p in network.parameters()),
        macs=deploy.count_macs(network),
        provenance=_provenance(checkpoint),
        licence=f"Apache-2.0; trained on {faces.name}, whose own terms bind its photos",
    )
    recipe, first = checkpoint.parsed_recipe, measured[0][1]
    sentences = (scaling.card_sentence(checkpoint), adjust.card_sentence(checkpoint))
    afterwards = [sentence for sentence in sentences if sentence]
    write_text(folder / "card.md", card.render(manifest, recipe, first, afterwards=afterwards))
    return ExportedModel(folder, write_manifest(manifest, folder), difference)


def metrics_of(one: PredictionFigures, *, dataset: str, split: str, protocol: str) -> Metrics:
    """Make a manifest's entry of figures, rounded to six digits."""
    low, high = one.interval
    return Metrics(
        dataset=dataset,
        split=split,
        protocol=protocol,
        n=one.n,
        accuracy=round(one.accuracy, 6),
        accuracy_interval=(round(low, 6), round(high, 6)),
        macro_f1=round(one.macro_f1, 6),
        per_class_f1={label: round(each.f1, 6) for label, each in one.per_class.items()},
        ece=round(one.ece, 6),
        answered=None
        if one.answered is None
        else Answered(
            coverage=round(one.answered.coverage, 6), accuracy=round(one.answered.accuracy, 6)
        ),
    )


def write_golden(folder: Path, session: OnnxSession, size: tuple[int, int]) -> GoldenFile:
    """Write golden inputs with the FP32 graph's answers into a model's folder.

    Args:
        folder: the model's.
        session: its FP32 graph.
        size: height and width of its input in pixels.

    Raises:
        StorageError: the file could not be written.
    """
    path = folder / golden.FILE_NAME
    answers = golden.record(session, golden_pictures.gray_crops(size))
    write_bytes(path, golden.encode(answers))
    return GoldenFile(path=path.name, sha256=file_sha256(path), bytes=path.stat().st_size)


def write_manifest(manifest: Manifest, folder: Path) -> Manifest:
    """Write `manifest.json` and read it back as the agent will."""
    path = folder / "manifest.json"
    write_text(path, manifest.model_dump_json(indent=2) + "\n")
    return read_manifest(path)


def _check(checkpoint: Checkpoint, faces: FaceSet) -> None:
    if checkpoint.labels != faces.labels:
        raise CheckpointError(
            f"the checkpoint knows {', '.join(checkpoint.labels)}, "
            f"but the data has {', '.join(faces.labels)}",
            remedy="use the data and label map it was trained with",
        )
    if checkpoint.selected_on == "test":
        raise ProtocolError(
            "the epoch of this checkpoint was chosen on the test split",
            remedy='train with train.select_on = "valid"',
        )
    for split in (Split.VALID, Split.TEST):
        if not len(faces.where(split)):
            raise DataError(
                f"{faces.name} has no image for {split.name.lower()}",
                remedy="give data that has all splits",
            )


def _check_words(name: str, version: str, labels: tuple[str, ...]) -> None:
    """Refuse words before the work that the manifest would refuse after it."""
    remedies = {
        "name": "call the folder by small letters, digits and hyphens",
        "version": "write three numbers, such as 1.2.3",
    }
    schema = Manifest.model_json_schema()["properties"]
    for field, value in (("name", name), ("version", version)):
        if not re.fullmatch(schema[field]["pattern"], value):
            raise UsageError(f"{value!r} is no {field} of a model", remedy=remedies[field])
    foreign = [label for label in labels if label not in EMOTIONS]
    if foreign:
        raise DataError(
            f"the agent has no word for the class {', '.join(foreign)}",
            remedy=f"train with --map <class>=<word>, out of {', '.join(EMOTIONS)}",
        )


def model_file(path: Path, precision: str) -> ModelFile:
    """Describe a graph that is in its folder."""
    return ModelFile.model_validate(
        {
            "path": path.name,
            "precision": precision,
            "sha256": file_sha256(path),
            "bytes": path.stat().st_size,
        }
    )


def _provenance(checkpoint: Checkpoint) -> Provenance:
    recipe = checkpoint.parsed_recipe
    return Provenance(
        recipe=recipe.name,
        seed=recipe.train.seed,
        commit=checkpoint.commit,
        data_sha256=checkpoint.data_sha256,
        epochs=checkpoint.best_epoch,
        device=checkpoint.device,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
