"""Training: resuming, stopping, checkpoints, teachers and processes."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from fer_agent.errors import UsageError
from fer_trainer import checkpoint, files, loop, step
from fer_trainer.data.faceset import FaceSet, Split
from fer_trainer.deploy import network_of
from fer_trainer.errors import (
    CheckpointError,
    DataError,
    DivergedError,
    ProtocolError,
    StorageError,
)
from fer_trainer.evaluate import evaluate, open_subject
from fer_trainer.fabric import launch
from fer_trainer.inference import predict
from fer_trainer.listeners import JsonLines
from fer_trainer.losses import distillation_losses, soften
from fer_trainer.networks.build import build_network
from fer_trainer.optim import learning_rate
from fer_trainer.recipe import DistillSection, LossSection, OptimSection, Recipe
from fer_trainer.targets import read_targets, write_targets
from fer_trainer.teachers import FileTeacher, open_teacher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Run
    from lightning_fabric import Fabric


class Stopping:
    """A listener that stops the run as a kill would, at a chosen step."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch

    def on_step(self, epoch: int, step: int, steps: int, record: dict[str, float]) -> None:
        del step, steps, record
        if epoch == self._epoch:
            raise KeyboardInterrupt

    def on_epoch(self, record: dict[str, Any]) -> None:
        del record


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def test_training_learns(run: Run) -> None:
    assert run.last.epoch == 2
    assert run.last.step == 2 * (70 // 16)
    assert checkpoint.load(run.folder / "best.ckpt").best_epoch == run.last.best_epoch


def test_killed_run_ends_with_the_same_weights(
    run: Run, recipe: Recipe, faces: FaceSet, fabric: Fabric, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        loop.train(recipe, faces, tmp_path, fabric, listeners=[Stopping(2)])
    assert checkpoint.load(tmp_path / "last.ckpt").epoch == 1
    torch.manual_seed(99)  # whatever else the process did meanwhile
    resumed = loop.train(recipe, faces, tmp_path, fabric)
    assert same(resumed.network, run.last.network)
    assert same(resumed.ema, run.last.ema)
    assert resumed.best_accuracy == run.last.best_accuracy


def test_run_killed_between_its_two_files_ends_with_the_same_best(
    run: Run, recipe: Recipe, faces: FaceSet, fabric: Fabric, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    saved: list[str] = []
    save = checkpoint.save

    def dying(state: checkpoint.Checkpoint, path: Path) -> None:
        if saved.count("best.ckpt") and path.name != "best.ckpt" and state.epoch == 1:
            raise KeyboardInterrupt
        saved.append(path.name)
        save(state, path)

    monkeypatch.setattr(loop.checkpoints, "save", dying)
    with pytest.raises(KeyboardInterrupt):
        loop.train(recipe, faces, tmp_path, fabric)
    assert saved == ["best.ckpt"]
    monkeypatch.setattr(loop.checkpoints, "save", save)
    loop.train(recipe, faces, tmp_path, fabric)
    ours, theirs = (checkpoint.load(place / "best.ckpt") for place in (tmp_path, run.folder))
    assert ours.best_epoch == theirs.best_epoch
    assert same(ours.ema, theirs.ema)


def test_run_of_an_older_trainer_with_fewer_switches_goes_on(
    run: Run, recipe: Recipe, faces: FaceSet, fabric: Fabric, tmp_path: Path
) -> None:
    older = {**run.last.recipe, "network": {"name": "student"}}
    checkpoint.save(replace(run.last, recipe=older), tmp_path / "last.ckpt")
    assert loop.train(recipe, faces, tmp_path, fabric).epoch == run.last.epoch


@pytest.fixture
def any_algorithm() -> Iterator[None]:
    """Undo what deterministic mode sets for the whole process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
        patch.delenv("CUBLAS_WORKSPACE_CONFIG")
        yield
    torch.use_deterministic_algorithms(mode=False)


@pytest.mark.usefixtures("any_algorithm")
def test_deterministic_mode_gives_the_same_weights_twice(
    recipe: Recipe, faces: FaceSet, tmp_path: Path
) -> None:
    strict = recipe.with_({
        "train.deterministic": True, "train.epochs": 1, "augment.mixup": 0.2,
    })  # fmt: skip
    ends = []
    for name in ("first", "second"):
        fabric = launch(strict, accelerator="cpu", threads=2)
        ends.append(loop.train(strict, faces, tmp_path / name, fabric))
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert same(ends[0].network, ends[1].network)
    assert same(ends[0].ema, ends[1].ema)
    other = strict.with_({"train.seed": 2})
    third = loop.train(other, faces, tmp_path / "third", fabric)
    assert not same(ends[0].network, third.network)


def test_run_of_another_recipe_or_data_is_not_continued(
    run: Run, recipe: Recipe, faces: FaceSet, fabric: Fabric
) -> None:
    with pytest.raises(CheckpointError, match="a run of another recipe"):
        loop.train(recipe.with_({"optim.lr": 0.01}), faces, run.folder, fabric)
    with pytest.raises(CheckpointError, match="a run of other data"):
        loop.train(recipe, replace(faces, sha256="1" * 64), run.folder, fabric)
    with pytest.raises(CheckpointError, match="was trained on angry, disgust"):
        loop.train(recipe, replace(faces, labels=tuple("abcdefg")), run.folder, fabric)


def test_loss_that_is_no_number_stops_and_keeps_the_last_epoch(
    recipe: Recipe, faces: FaceSet, fabric: Fabric, tmp_path: Path
) -> None:
    class Poison(Stopping):
        def on_epoch(self, record: dict[str, Any]) -> None:
            del record
            patch.setattr(step, "learning_rate", lambda *_: float("nan"))

    said = r"not a number at step 6; last\.ckpt is whole, after epoch 1"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(DivergedError, match=said):
        loop.train(recipe, faces, tmp_path, fabric, listeners=[Poison(0)])
    kept = checkpoint.load(tmp_path / "last.ckpt")
    assert kept.epoch == 1
    assert all(torch.isfinite(t).all() for t in kept.network.values() if t.is_floating_point())


def test_loss_that_is_no_number_in_the_first_epoch_promises_no_checkpoint(
    recipe: Recipe, faces: FaceSet, fabric: Fabric, tmp_path: Path
) -> None:
    steep = recipe.with_({"optim.lr": 1e38})
    with pytest.raises(DivergedError, match="at step 2; no epoch was saved"):
        loop.train(steep, faces, tmp_path, fabric)
    assert list(tmp_path.iterdir()) == []


def test_patience_stops_early_and_stays_stopped(
    recipe: Recipe, faces: FaceSet, fabric: Fabric, tmp_path: Path
) -> None:
    still = recipe.with_({"optim.lr": 1e-12, "train.epochs": 9, "train.patience": 1})
    state = loop.train(still, faces, tmp_path, fabric)
    assert state.epoch - state.best_epoch == 1
    assert loop.train(still, faces, tmp_path, fabric).epoch == state.epoch


def test_empty_split_and_class_are_refused(
    recipe: Recipe, faces: FaceSet, fabric: Fabric, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="no image for valid"):
        loop.train(recipe, faces.take(faces.split != Split.VALID), tmp_path, fabric)
    with pytest.raises(DataError, match="class angry has no training image"):
        loop.train(recipe, faces.take(faces.hard_labels != 0), tmp_path, fabric)


def test_full_disk_leaves_the_old_checkpoint(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    checkpoint.save(run.last, path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        checkpoint.save(replace(run.last, epoch=77), path)
    assert checkpoint.load(path).epoch == run.last.epoch
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_disk_that_fills_up_while_saving_leaves_the_old_checkpoint(
    run: Run, tmp_path: Path
) -> None:
    """The system itself refuses to let the file grow, in the middle of torch's writing."""
    path = tmp_path / "last.ckpt"
    checkpoint.save(run.last, path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size // 2, hard))
    try:
        with pytest.raises(StorageError, match=r"last\.ckpt could not be written: File too large"):
            checkpoint.save(replace(run.last, epoch=77), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoint.load(path).epoch == run.last.epoch
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_full_disk_is_said_of_logs_and_folders(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="/dev/full could not be written: No space left"):
        JsonLines(Path("/dev/full")).on_epoch({"epoch": 1})
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be made: File exists"):
        files.make_folder(tmp_path / "file")
    with pytest.raises(StorageError, match="cannot be made: File exists"):
        files.write_text(tmp_path / "file" / "report.md", "")


def test_what_is_no_checkpoint_is_refused(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    whole = (run.folder / "last.ckpt").read_bytes()
    for content in (b"nothing", b"emotion,pixels\n", b"", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"is no checkpoint .* it is damaged"):
            checkpoint.load(path)
    torch.save({"format": 1, "labels": []}, path)
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        checkpoint.load(path)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        checkpoint.load(path)
    checkpoint.save(replace(run.last, recipe={"name": "other", "section": {}}), path)
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        checkpoint.load(path)
    with pytest.raises(CheckpointError, match="there is no"):
        checkpoint.load(tmp_path / "gone.ckpt")


def test_small_checkpoint_starts_another_run(run: Run, faces: FaceSet, tmp_path: Path) -> None:
    whole = checkpoint.load(run.folder / "best.ckpt")
    path = tmp_path / "small.ckpt"
    checkpoint.save(checkpoint.compact(whole), path)
    assert path.stat().st_size < 0.2 * (run.folder / "best.ckpt").stat().st_size
    small = checkpoint.load(path, labels=whole.labels)
    ours, theirs = (
        predict(network_of(state), faces.images, torch.device("cpu")) for state in (small, whole)
    )
    assert torch.allclose(ours, theirs, atol=0.02)
    section = whole.parsed_recipe.network.model_copy(update={"weights": "run"})
    network = build_network(section, len(faces.labels), path)
    assert torch.allclose(predict(network, faces.images, torch.device("cpu")), ours, atol=1e-5)


def test_schedules_rise_and_fall() -> None:
    section = OptimSection(lr=1.0, schedule="one-cycle", warmup=0.2)
    rates = [learning_rate(section, step / 100) for step in range(101)]
    assert max(rates) == rates[20] == 1.0
    assert rates[0] == pytest.approx(0.04)
    assert rates[100] == pytest.approx(0.0)
    paper = OptimSection(name="adam", lr=1e-3, final_lr=1e-5, schedule="cosine")
    assert learning_rate(paper, 0.0) == 1e-3
    assert learning_rate(paper, 1.0) == pytest.approx(1e-5)


def test_distillation_is_the_sum_of_its_named_parts() -> None:
    student, teacher = torch.randn(4, 7), torch.randn(4, 7)
    targets = torch.eye(7)[:4]
    section = DistillSection(temperature=4.0, alpha=0.7)
    parts = distillation_losses(student, targets, soften(teacher, 4.0), LossSection(), section)
    expected = 0.7 * parts["kd_loss"] + 0.3 * parts["label_loss"]
    assert torch.allclose(parts["loss"], expected)
    p, q = torch.softmax(student / 4, 1), torch.softmax(teacher / 4, 1)
    assert torch.allclose(parts["kd_loss"], 16 * (q * (q / p).log()).sum(1).mean(), atol=1e-5)
    agreed = distillation_losses(student, targets, soften(student, 4.0), LossSection(), section)
    assert float(agreed["kd_loss"]) == pytest.approx(0.0, abs=1e-5)


@pytest.fixture(scope="module")
def targets_file(
    tmp_path_factory: pytest.TempPathFactory, run: Run, recipe: Recipe, faces: FaceSet
) -> Path:
    path = tmp_path_factory.mktemp("targets") / "targets.npz"
    teacher = open_teacher(faces, torch.device("cpu"), runs=[run.folder], targets=None)
    write_targets(
        teacher,
        faces,
        path,
        views=2,
        seed=5,
        augment_section=recipe.augment,
        device=torch.device("cpu"),
    )
    return path


def test_stored_views_can_be_seen_again(
    run: Run, recipe: Recipe, faces: FaceSet, targets_file: Path
) -> None:
    from fer_trainer.augment import augment, draw_view
    from fer_trainer.views import TrainingView

    cpu = torch.device("cpu")
    stored = FileTeacher(targets_file, faces, cpu)
    view = stored.view(3, TrainingView(1, 3, recipe.augment))
    assert (view.seed, view.number, view.augment) == (5, 1, recipe.augment)
    training = faces.training()
    chosen = torch.tensor([4, 60])
    draws = torch.from_numpy(draw_view(view.seed, view.number, len(training)))
    views = augment(torch.tensor(training.images)[chosen], draws[chosen], view.augment)
    asked = open_teacher(faces, cpu, runs=[run.folder], targets=None).logits(views, chosen)
    assert torch.allclose(stored.logits(views, chosen), asked, atol=2e-3)


def test_student_learns_from_the_file(
    recipe: Recipe, faces: FaceSet, fabric: Fabric, targets_file: Path, tmp_path: Path
) -> None:
    heard: list[dict[str, float]] = []

    class Hearing(Stopping):
        def on_step(self, epoch: int, step: int, steps: int, record: dict[str, float]) -> None:
            del epoch, step, steps
            heard.append(record)

    teacher = open_teacher(faces, fabric.device, runs=[], targets=targets_file)
    mixed = recipe.with_({"train.epochs": 1, "augment.mixup": 0.2})
    state = loop.train(mixed, faces, tmp_path, fabric, teacher=teacher, listeners=[Hearing(0)])
    assert state.epoch == 1
    assert {"loss", "kd_loss", "label_loss"} <= heard[-1].keys()


def test_targets_file_gives_the_teachers_figures_without_the_teacher(
    run: Run, faces: FaceSet, targets_file: Path
) -> None:
    by_file = evaluate(open_subject(targets_file), faces)
    by_teacher = evaluate(open_subject(run.folder), faces)
    assert by_file.whole.accuracy == by_teacher.whole.accuracy
    assert by_file.whole.confusion == by_teacher.whole.confusion
    assert by_file.without_trained.n == by_teacher.without_trained.n
    assert by_file.temperature == pytest.approx(by_teacher.temperature, abs=0.01)
    # rows are found by name, so a choice of the images works too
    some = evaluate(open_subject(targets_file), faces.take(faces.hard_labels != 2))
    assert some.whole.n == 24
    (member,) = read_targets(targets_file).members
    assert member["network"] == "student"
    assert member["valid_accuracy"] == run.last.best_accuracy


def test_targets_file_does_not_report_what_chose_it_or_what_it_does_not_hold(
    faces: FaceSet, targets_file: Path
) -> None:
    subject = open_subject(targets_file)
    with pytest.raises(ProtocolError, match="was chosen on valid"):
        evaluate(subject, faces, split=Split.VALID)
    with pytest.raises(UsageError, match="holds answers to single crops, not flip"):
        evaluate(subject, faces, protocol="flip")
    with pytest.raises(CheckpointError, match="is not about these images"):
        evaluate(subject, replace(faces, sha256="1" * 64))
    renamed = replace(faces, names=tuple(f"other-{name}" for name in faces.names))
    with pytest.raises(CheckpointError, match="lacks 35 images of valid"):
        evaluate(subject, renamed)


def test_targets_of_other_data_are_refused(
    faces: FaceSet, targets_file: Path, tmp_path: Path
) -> None:
    cpu = torch.device("cpu")
    with pytest.raises(CheckpointError, match="about other images or classes"):
        FileTeacher(targets_file, faces.limited(21), cpu)
    broken = tmp_path / "broken.npz"
    for content in (targets_file.read_bytes()[:500], b"file,happy\n", b""):
        broken.write_bytes(content)
        with pytest.raises(CheckpointError, match="is no targets file: it is damaged"):
            FileTeacher(broken, faces, cpu)
    with np.load(targets_file) as stored:
        parts = dict(stored)
    meta = json.loads(str(parts["meta"]))
    for change, said in (
        ({"draws": ["flip"]}, "its views were drawn in another way"),
        ({"format": 1}, "of another version"),
        ({"labels": ["angry"]}, "its parts do not fit together"),
    ):
        np.savez(broken, **{**parts, "meta": np.array(json.dumps({**meta, **change}))})
        with pytest.raises(CheckpointError, match=said):
            read_targets(broken)
    with pytest.raises(CheckpointError, match="there is no"):
        FileTeacher(tmp_path / "gone.npz", faces, cpu)
    np.savez(broken, logits=np.zeros(3), meta=np.array(json.dumps({"format": 1})))
    with pytest.raises(CheckpointError, match="is no targets file"):
        FileTeacher(broken, faces, cpu)


def test_two_processes_train_together(
    recipe: Recipe, fer2013_folder: Path, tmp_path: Path, root: Path
) -> None:
    out = tmp_path / "run"
    command = [
        # Of a test that is stopped, `timeout` ends the workers too.
        *("timeout", "--kill-after=5", "180"),
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
        *("--standalone", "-m", "fer_trainer", "train", "--recipe", "tests-smoke"),
        *("--data", str(fer2013_folder), "--any-counts", "--out", str(out), "--threads", "1"),
    ]
    path = os.pathsep.join(str(root / part) for part in ("agent", "trainer"))
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    state = checkpoint.load(out / "last.ckpt")
    assert state.step == 70 // (2 * 16)
    assert len(state.random) == 2
    assert len((out / "log.jsonl").read_text().splitlines()) == 1
    assert done.stdout.count("best epoch 1 of 1") == 1
