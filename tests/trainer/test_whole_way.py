"""The whole way on a tiny set: train, release, quantize, evaluate, and the agent runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from fer_agent.config.model import TrackerConfig
from fer_agent.errors import FindingsError, ModelFileError, UsageError
from fer_agent.inference import golden
from fer_agent.inference.onnx import OnnxSession
from fer_agent.models.manifest import read_manifest
from fer_agent.models.store import StoredModel
from fer_agent.vision.classifier import CropClassifier
from fer_agent.vision.records import Faces, Frame
from fer_agent.vision.tracker import IouTracker
from fer_trainer import checkpoint, cli, deploy, quantize, release
from fer_trainer.bench import measure
from fer_trainer.data.faceset import FaceSet, Split
from fer_trainer.errors import CheckpointError, DataError, ProtocolError
from fer_trainer.evaluate import evaluate, open_subject, over_seeds
from fer_trainer.grid import Grid, choose
from fer_trainer.labels import BASIC_7, BASIC_8
from fer_trainer.report.pages import write_report
from fer_trainer.results import Results
from fer_trainer.tables import ABLATION, BASELINES

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Run
    from lightning_fabric import Fabric

    from fer_trainer.recipe import Recipe


pytestmark = pytest.mark.xdist_group("whole-way")


@pytest.fixture(scope="module")
def model(run: Run, faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-model"
    state = checkpoint.load(run.folder / "best.ckpt")
    made = release.release(state, faces, folder, version="1.2.3")
    assert made.difference <= deploy.MAX_DIFFERENCE
    return folder


def test_graph_takes_any_batch_of_uint8(model: Path, faces: FaceSet) -> None:
    graph = onnx.load(str(model / "model.onnx"))
    (crops,) = graph.graph.input
    sizes = [dim.dim_param or dim.dim_value for dim in crops.type.tensor_type.shape.dim]
    assert crops.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert sizes == ["N", 1, 48, 48]
    session = OnnxSession(model / "model.onnx")
    one = deploy.graph_logits(session, faces.images[:1])
    many = deploy.graph_logits(session, faces.images[:9])
    assert np.allclose(one, many[:1], atol=1e-5)


def test_graph_equals_the_network_on_real_crops(run: Run, model: Path, faces: FaceSet) -> None:
    network = deploy.network_of(checkpoint.load(run.folder / "best.ckpt"))
    graph = onnx.load(str(model / "model.onnx"))
    assert deploy.largest_difference(network, graph, faces.images) <= 1e-4
    weights = next(one for one in graph.graph.initializer if list(one.dims) == [7])
    moved = onnx.numpy_helper.to_array(weights) + 1
    weights.CopyFrom(onnx.numpy_helper.from_array(moved, weights.name))
    with pytest.raises(FindingsError, match="differs from PyTorch"):
        deploy.refuse_difference(network, graph, faces.images)


def test_golden_inputs_go_with_the_model(model: Path) -> None:
    stored = StoredModel(folder=model, manifest=read_manifest(model / "manifest.json"))
    path = stored.golden_file()
    assert path is not None
    answers = golden.load(path)
    agreement = golden.compare(OnnxSession(model / "model.onnx"), answers)
    assert answers.input.shape == (24, 1, 48, 48)
    assert agreement.within(golden.TOLERANCES["fp32"])


def test_manifest_says_what_was_measured(run: Run, model: Path, faces: FaceSet) -> None:
    manifest = read_manifest(model / "manifest.json")
    assert manifest.labels == faces.labels
    assert [(one.split, one.n) for one in manifest.metrics] == [
        ("test", 28), ("test", 28), ("valid", 35),
    ]  # fmt: skip
    assert manifest.metrics[2].accuracy == pytest.approx(run.last.best_accuracy, abs=1e-6)
    assert manifest.parameters == 1_242_839
    assert manifest.provenance.seed == 1
    card = (model / "card.md").read_text()
    assert f"{manifest.metrics[0].accuracy:.4f}" in card
    assert "tiny-model 1.2.3" in card
    assert "uint8 (N, 1, 48, 48), gray" in card
    assert card.count("\n| F1 | ") == card.count("\n| wrongly called angry or sad | ") == 1
    assert "FER2013" not in card  # what is known of its photos is not known of others


def test_checkpoint_and_model_get_the_same_figures(run: Run, model: Path, faces: FaceSet) -> None:
    by_torch = evaluate(open_subject(run.folder), faces)
    by_agent = evaluate(open_subject(model), faces)
    assert by_agent.whole.accuracy == by_torch.whole.accuracy
    assert by_agent.whole.confusion == by_torch.whole.confusion
    assert by_agent.whole.ece == pytest.approx(by_torch.whole.ece, abs=1e-4)
    manifest = read_manifest(model / "manifest.json")
    assert by_agent.whole.accuracy == pytest.approx(manifest.metrics[0].accuracy, abs=1e-6)
    assert over_seeds([by_torch, by_agent])["accuracy_deviation"] == 0.0


@pytest.mark.parametrize("what", ["run", "model"])
def test_the_split_that_chose_is_not_reported(
    run: Run, model: Path, faces: FaceSet, what: str
) -> None:
    subject = open_subject(run.folder if what == "run" else model)
    with pytest.raises(ProtocolError, match="was chosen on valid"):
        evaluate(subject, faces, split=Split.VALID)


def test_release_refuses_a_choice_on_the_test(run: Run, faces: FaceSet, tmp_path: Path) -> None:
    state = checkpoint.load(run.folder / "best.ckpt")
    with pytest.raises(ProtocolError, match="chosen on the test split"):
        release.release(replace(state, selected_on="test"), faces, tmp_path / "m", version="1.0.0")
    with pytest.raises(DataError, match="no image for test"):
        release.release(state, faces.take(faces.split != 2), tmp_path / "m", version="1.0.0")
    with pytest.raises(CheckpointError, match="but the data has"):
        release.release(state, replace(faces, labels=tuple("abcdefg")), tmp_path, version="1.0.0")
    with pytest.raises(UsageError, match="'Mine!' is no name of a model"):
        release.release(state, faces, tmp_path / "Mine!", version="1.0.0")
    with pytest.raises(UsageError, match="'one' is no version of a model"):
        release.release(state, faces, tmp_path / "m", version="one")
    own = (*faces.labels[:-1], "bored")
    with pytest.raises(DataError, match="no word for the class bored"):
        release.release(
            replace(state, labels=own), replace(faces, labels=own), tmp_path / "m", version="1.0.0"
        )
    assert not list(tmp_path.iterdir())


def test_quantized_graphs_join_the_manifest(model: Path, faces: FaceSet) -> None:
    before = (model / "model.onnx").stat().st_size
    with pytest.raises(FindingsError, match="more than -100"):
        quantize.quantize(model, faces, crops=28, limit=-1.0)
    assert not (model / "model.int8.onnx").exists()
    int8, fp16 = quantize.quantize(model, faces, crops=28, limit=1.0)
    manifest = read_manifest(model / "manifest.json")
    assert [file.precision for file in manifest.files] == ["fp32", "int8", "fp16"]
    assert int8.file.bytes < 0.4 * before < fp16.file.bytes < 0.6 * before
    assert fp16.agreement > 0.9
    for precision in ("int8", "fp16"):
        judged = evaluate(open_subject(model), faces, precision=precision)
        assert judged.whole.n == 28
    (model / "model.int8.onnx").write_bytes(b"x")
    with pytest.raises(ModelFileError):
        evaluate(open_subject(model), faces, precision="int8")


def test_agent_classifies_a_frame_with_it(model: Path, faces: FaceSet) -> None:
    manifest = read_manifest(model / "manifest.json")
    path = StoredModel(folder=model, manifest=manifest).verified_file()
    classifier = CropClassifier(OnnxSession(path), manifest)
    luma = np.full((240, 320), 90, np.uint8)
    luma[100:148, 60:108] = faces.images[0]
    found = Faces(
        xyxy=np.array([[60, 100, 108, 148]], np.float32),
        score=np.array([0.9], np.float32),
        landmarks=np.full((1, 5, 2), np.nan, np.float32),
        frame_size=(320, 240),
    )
    tracker = IouTracker(TrackerConfig())
    for frame in range(10):  # a face is believed after a few frames
        tracks = tracker.update(found, 1 + frame * 33_000_000)
    scores = classifier.classify(Frame(luma, 1, 1), tracks)
    assert scores.labels == faces.labels
    assert scores.probs.sum() == pytest.approx(1.0, abs=1e-5)


def test_bench_measures_and_counts(run: Run, fabric: Fabric) -> None:
    network = deploy.network_of(checkpoint.load(run.folder / "best.ckpt"))
    speed = measure(network, fabric.device, runs=5, warmup=1)
    assert speed.fps == pytest.approx(1000 / speed.mean_ms)
    assert (speed.parameters, speed.runs) == (1_242_839, 5)
    assert speed.peak_mb > 50


def test_grid_goes_on_and_report_says_what_is_missing(
    recipe: Recipe, faces: FaceSet, fabric: Fabric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.json"
    short = recipe.with_({"train.epochs": 1})
    grid = Grid("baselines", short, faces, fabric, tmp_path, Results.open(path))
    rows = choose(BASELINES, ["hog-svm", "student", "student-distilled"])
    assert grid.run(rows, [1]) == ["The paper's network, distilled"]
    ablation = Grid("ablation", short, faces, fabric, tmp_path, Results.open(path))
    ablation.run(choose(ABLATION, ["plain"]), [1])

    def again(*_: object, **__: object) -> None:
        pytest.fail("measured again")

    monkeypatch.setattr("fer_trainer.loop.train", again)
    monkeypatch.setattr("fer_trainer.classical.fit", again)
    results = Results.open(path)
    Grid("baselines", short, faces, fabric, tmp_path, results).run(rows, [1])
    written = write_report(results, tmp_path / "report")
    markdown = (tmp_path / "report" / "report.md").read_text()
    assert "| ResNet-50 (teacher) | 74.8 % | not measured |" in markdown
    assert "not measured: data not redistributable" in markdown
    assert "| HOG + SVM [tiny] |  | " in markdown
    page = (tmp_path / "report" / "report.html").read_text()
    for text in (markdown, page):
        assert "Not comparable with the paper" in text
        assert "tiny: 70 training and 28 test images" in text
    assert page.count("data:image/png;base64,") == 4
    assert "http" not in page
    assert len(written) == 6


def record(dataset: str, trained: int, tested: int) -> dict[str, Any]:
    each = {"precision": 0.6, "recall": 0.6, "f1": 0.6, "support": tested // 7}
    labels = BASIC_8 if dataset.startswith("FER+") else BASIC_7
    figures = {
        "n": tested, "accuracy": 0.6, "accuracy_interval": [0.58, 0.62], "macro_f1": 0.6,
        "per_class": dict.fromkeys(labels, each), "confusion": np.eye(len(labels)).tolist(),
    }  # fmt: skip
    return {
        "seed": 1, "fingerprint": dataset, "dataset": dataset, "parameters": 1_242_839,
        "images": {"train": trained}, "macs": None, "epochs": 3, "valid_accuracy": 0.6,
        "without_trained_accuracy": 0.6, "test": figures,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("dataset", "trained", "tested", "mark"),
    [
        ("FER2013", 28_709, 3_589, ""),
        ("FER2013", 2_000, 3_589, " [part of FER2013]"),
        ("FER2013", 28_709, 2_000, " [part of FER2013]"),
        ("FER+ majority", 28_709, 3_589, " [FER+ majority]"),
        ("noise", 28_709, 3_589, " [noise]"),
    ],
)
def test_report_marks_figures_of_other_data(
    dataset: str, trained: int, tested: int, mark: str, tmp_path: Path
) -> None:
    results = Results.open(tmp_path / "results.json")
    results.add("baselines", "student", record(dataset, trained, tested))
    results.add("baselines", "vgg13", record("FER2013", 28_709, 3_589))
    write_report(results, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert f"| MobileNetV3-Small + SE{mark} | " in text
    assert "| VGG13 | 72.4 % | 60.00" in text
    assert ("Not comparable with the paper" in text) == bool(mark)


def test_a_trial_never_replaces_a_measured_row(tmp_path: Path) -> None:
    results = Results.open(tmp_path / "results.json")
    results.add("baselines", "student", {**record("FER2013", 28_709, 3_589), "epochs": 60})
    results.add("baselines", "student", record("noise", 56, 28))
    results.add("baselines", "student", record("FER2013", 2_000, 2_000))
    results.add("baselines", "student", record("FER2013", 28_709, 3_589))
    found = Results.open(tmp_path / "results.json").records("baselines", "student")
    assert [one["epochs"] for one in found] == [3, 3, 3]  # the newest of the whole took its place
    write_report(results, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "| MobileNetV3-Small + SE |  | 60.00" in text
    assert "Not comparable" not in text
    tree = json.loads((tmp_path / "results.json").read_text())
    assert tree["paper"]["baselines"]["vgg13"] == 72.4


def test_report_shows_affectnet_and_larger_crops_when_they_were_measured(tmp_path: Path) -> None:
    results = Results.open(tmp_path / "results.json")
    results.add("affectnet", "student", record("AffectNet-8", 280_000, 4_000))
    results.add("baselines", "resnet50@224", record("FER2013", 28_709, 3_589))
    write_report(results, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "| AffectNet [AffectNet-8] | 58.4 % | 60.00" in text
    assert "| ResNet-50 (teacher) | 74.8 % | not measured |" in text
    assert "| ResNet-50 (teacher) at 224x224 | 74.8 % | 60.00" in text


def test_report_of_nothing_says_so(tmp_path: Path) -> None:
    results = Results.open(tmp_path / "results.json")
    write_report(results, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert text.count("not measured") > 15
    (tmp_path / "results.json").write_text(json.dumps({"schema_version": 9}))
    with pytest.raises(DataError, match="is no results file"):
        Results.open(tmp_path / "results.json")


def fer_train(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "fer_trainer", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


def in_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str | Path
) -> str:
    """Run a command without a new process, for what does not depend on one; stdout."""
    monkeypatch.setattr("sys.argv", ["fer-train", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr()
    assert ended.value.code == 0, told.err
    return told.out


@pytest.mark.timeout(900)
def test_commands_go_the_whole_way(
    fer2013_archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    data = ("--data", fer2013_archive, "--any-counts")
    prepared = json.loads(in_process(capsys, monkeypatch, "prepare", *data, "--json"))
    assert prepared["images"] == 70 + 35 + 28
    run, targets = tmp_path / "student", tmp_path / "targets.npz"
    quick = ("--recipe", "tests-smoke", "--threads", "1")
    fer_train("teacher", *data, *quick, "--out", tmp_path / "teacher", "--write-targets", targets)
    fer_train("distill", *data, *quick, "--out", run, "--targets", targets)
    model = tmp_path / "own-model"
    fer_train("export", run, *data, "--out", model, "--vector-scaling", "--adjust")
    told = fer_train("evaluate", model, *data, "--json")
    (judged,) = json.loads(told.stdout)["evaluations"]
    manifest = read_manifest(model / "manifest.json")
    assert judged["accuracy"] == pytest.approx(manifest.metrics[0].accuracy, abs=1e-4)
    assert judged["n"] == 28
    of_file, of_run = (
        json.loads(in_process(capsys, monkeypatch, "evaluate", path, *data, "--json"))
        for path in (targets, tmp_path / "teacher")
    )
    assert of_file["evaluations"][0]["confusion"] == of_run["evaluations"][0]["confusion"]
    in_process(capsys, monkeypatch, "quantize", model, *data, "--crops", "28", "--limit", "100")
    assert len(read_manifest(model / "manifest.json").files) == 3
    classifier = CropClassifier(
        OnnxSession(model / "model.int8.onnx"), read_manifest(model / "manifest.json")
    )
    assert classifier.probs(np.zeros((2, 1, 48, 48), np.uint8)).shape == (2, 7)


def test_errors_end_in_two_lines_and_their_code(fer2013_archive: Path, tmp_path: Path) -> None:
    data = ("--data", fer2013_archive)
    counts = fer_train("prepare", *data, code=1)
    assert counts.stderr.splitlines() == [
        "fer-train: FER2013 has 28709 images for train, this copy has 70",
        "  use a whole copy, or pass --any-counts when a part is meant",
    ]
    fer_train("train", *data, "--out", tmp_path, "--recipe", "bets", code=78)
    fer_train("evaluate", tmp_path, *data, "--protocol", "six-crop", code=2)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("prepare --data {gone}", 1, "there is no"),
        ("prepare --data {table} --any-counts", 1, "row 1 has 3 pixels"),
        ("prepare --data {data} --any-counts --map rage=angry", 1, "names the class 'rage'"),
        ("train --data {data} --any-counts --out {file} --recipe tests-smoke", 75, "File exists"),
        ("train --data {data} --out {gone} --set optim.momentun=0", 78, "optim.momentun"),
        ("train --data {data} --any-counts --out {run} --map angry=drop", 78, "was trained on"),
        ("evaluate {table} --data {data}", 78, "is no checkpoint"),
        ("evaluate {run} --data {data} --any-counts --split valid", 1, "would flatter it"),
        ("distill --data {data} --any-counts --out {gone} --targets {table}", 78, "no targets"),
        ("bench {table}", 78, "is no checkpoint"),
        ("baselines --data {data} --any-counts --seeds 1,x", 2, "is no list of numbers"),
        ("report --results {table}", 1, "is no results file"),
        ("report --results {gone} --out {file}", 75, "File exists"),
        ("evaluate {npz} --data {data} --any-counts", 78, "is no targets file"),
        ("baselines --data {data} --any-counts --only vgg", 78, "there is no row 'vgg'"),
    ],
)
def test_bad_input_ends_in_one_sentence_one_remedy_and_its_code(
    words: str, code: int, said: str, run: Run, fer2013_archive: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    table = tmp_path / "fer2013.csv"
    table.write_text("emotion,pixels,Usage\n0,1 2 3,Training\n")
    npz = tmp_path / "targets.npz"
    npz.write_bytes(b"nothing")
    places = {
        "data": fer2013_archive, "run": run.folder, "table": table, "file": table, "npz": npz,
    }  # fmt: skip
    filled = [word.format(**places, gone=tmp_path / "gone") for word in words.split()]
    monkeypatch.setattr("sys.argv", ["fer-train", *filled])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr().err.splitlines()
    assert ended.value.code == code, told
    assert len(told) == 2
    assert told[0].startswith("fer-train: ")
    assert said in told[0]
    assert told[1].startswith("  ")
