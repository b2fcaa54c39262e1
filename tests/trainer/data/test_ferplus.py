"""Votes to targets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fer_trainer.data.faceset import FaceSet, Split
from fer_trainer.data.ferplus import blended, vote_targets, with_votes
from fer_trainer.errors import DataError
from fer_trainer.labels import BASIC_8

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"


def targets(votes: list[int], kind: str) -> dict[str, float]:
    row = vote_targets(np.array([votes], np.float32), kind)[0]  # type: ignore[arg-type]  # a test's word
    return {
        label: round(float(share), 3) for label, share in zip(BASIC_8, row, strict=True) if share
    }


def test_majority_needs_more_than_half() -> None:
    assert targets([0, 8, 2, 0, 0, 0, 0, 0, 0, 0], "majority") == {"happy": 1.0}
    assert targets([5, 5, 0, 0, 0, 0, 0, 0, 0, 0], "majority") == {}


def test_agreed_needs_more_than_five_people() -> None:
    assert targets([6, 3, 1, 0, 0, 0, 0, 0, 0, 0], "agreed") == {"neutral": 1.0}
    assert targets([5, 3, 1, 0, 0, 0, 0, 0, 0, 0], "agreed") == {}
    assert targets([3, 1, 0, 0, 0, 0, 0, 0, 6, 0], "agreed") == {}


def test_plurality_shares_ties() -> None:
    assert targets([4, 4, 2, 0, 0, 0, 0, 0, 0, 0], "plurality") == {"happy": 0.5, "neutral": 0.5}


def test_distribution_forgets_single_votes() -> None:
    found = targets([6, 0, 0, 3, 1, 0, 0, 0, 0, 0], "distribution")
    assert found == {"neutral": 0.667, "sad": 0.333}


@pytest.mark.parametrize("kind", ["majority", "plurality", "distribution"])
def test_unknown_and_no_face_are_left_out(kind: str) -> None:
    assert targets([2, 0, 0, 0, 0, 0, 0, 0, 8, 0], kind) == {}
    assert targets([0, 0, 0, 0, 0, 0, 0, 0, 0, 10], kind) == {}


def test_votes_join_by_name_whatever_the_order(faces: FaceSet, tmp_path: Path) -> None:
    table = tmp_path / "votes.csv"
    rows = [f"{name},10,0,0,0,0,0,0,0,0,0" for name in reversed(faces.names[1:])]
    rows.append(f"{faces.names[0]},0,0,0,0,0,0,0,10,0,0")
    table.write_text("\n".join([f"file,{HEAD}", *rows]))
    found = with_votes(faces, table, "majority")
    assert found.labels == BASIC_8
    assert len(found) == len(faces)
    assert found.labels[found.hard_labels[0]] == "contempt"
    assert (found.hard_labels[1:] == BASIC_8.index("neutral")).all()


def test_votes_join_by_row(faces: FaceSet, tmp_path: Path) -> None:
    by_row = FaceSet(
        faces.name,
        faces.labels,
        faces.images,
        faces.targets,
        faces.split,
        tuple(f"row-{i + 1}" for i in range(len(faces))),
        faces.sha256,
    )
    table = tmp_path / "fer2013new.csv"
    row = "Training,,0,10,0,0,0,0,0,0,0,0"
    table.write_text("\n".join([f"Usage,Image name,{HEAD}", *[row] * len(faces)]))
    assert (with_votes(by_row, table, "majority").hard_labels == BASIC_8.index("happy")).all()
    with pytest.raises(DataError, match="no column `file`"):
        with_votes(faces, table, "majority")
    table.write_text("\n".join([f"Usage,Image name,{HEAD}", row]))
    with pytest.raises(DataError, match="has 1 rows, the data has row"):
        with_votes(by_row, table, "majority")


def test_blending_leaves_validation_and_test_alone(faces: FaceSet, tmp_path: Path) -> None:
    table = tmp_path / "votes.csv"
    rows = [f"{name},10,0,0,0,0,0,0,0,0,0" for name in faces.names]
    table.write_text("\n".join([f"file,{HEAD}", *rows]))
    mixed = blended(faces, table, 0.25)
    trained = faces.where(Split.TRAIN)
    neutral = faces.labels.index("neutral")
    assert np.allclose(mixed.targets.sum(axis=1), 1)
    assert mixed.targets[trained[0], neutral] == pytest.approx(0.25)
    others = faces.split != Split.TRAIN
    assert np.array_equal(mixed.targets[others], faces.targets[others])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"file,{HEAD}\na,1,2,x,0,0,0,0,0,0,0\n", "row 1 has no number"),
        (f"file,{HEAD}\na,1,2,-3,0,0,0,0,0,0,0\n", "votes that are negative"),
        (f"file,{HEAD}\na,1,2,nan,0,0,0,0,0,0,0\n", "negative or infinite"),
        (f"file,{HEAD}\na,1,2\n", "row 1 has not as many cells"),
        (f"file,{HEAD}\nb,1,2,3,0,0,0,0,0,0,0\n", "names none of these images"),
        (f"file,{HEAD}\n", "has no rows"),
    ],
)
def test_bad_tables_are_refused(faces: FaceSet, tmp_path: Path, text: str, said: str) -> None:
    table = tmp_path / "votes.csv"
    table.write_text(text)
    with pytest.raises(DataError, match=said):
        with_votes(faces, table, "majority")


def test_missing_table_is_refused(faces: FaceSet, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        with_votes(faces, tmp_path / "gone.csv", "majority")


@pytest.mark.xdist_group("fer2013")
def test_real_votes_give_the_protocol_of_the_paper(
    shared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fer_trainer import cli

    data = shared / "data"
    arguments = [
        *("fer-train", "prepare", "--data", str(data / "fer2013.tar.xz")),
        *("--votes", str(data / "ferplus_votes.csv"), "--targets", "distribution", "--json"),
    ]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert told["dataset"] == "FER+ distribution"
    counts = {split: sum(classes.values()) for split, classes in told["splits"].items()}
    assert counts == {"train": 28_389, "valid": 3_553, "test": 3_545}
    assert list(told["splits"]["test"]) == list(BASIC_8)
    assert told["also_in_training"] == {"valid": 277, "test": 287}


@pytest.mark.parametrize("kind", ["plurality", "distribution"])
@pytest.mark.parametrize(
    ("votes", "truth"),
    [
        ([4, 0, 0, 4, 2, 0, 0, 0, 0, 0], "neutral"),  # the first in the table, not in our labels
        ([0, 0, 0, 4, 4, 0, 2, 0, 0, 0], "sad"),
        ([0, 0, 0, 0, 4, 0, 0, 2, 4, 0], "angry"),  # as many say that they do not know
        ([0, 0, 3, 0, 0, 0, 4, 0, 3, 0], "fear"),
    ],
)
def test_ties_go_to_the_first_in_the_table(
    faces: FaceSet, tmp_path: Path, kind: str, votes: list[int], truth: str
) -> None:
    table = tmp_path / "votes.csv"
    row = ",".join(map(str, votes))
    table.write_text("\n".join([f"file,{HEAD}", *(f"{name},{row}" for name in faces.names)]))
    found = with_votes(faces, table, kind)  # type: ignore[arg-type]  # a test's word
    assert {found.labels[number] for number in found.hard_labels} == {truth}


@pytest.mark.xdist_group("fer2013")
def test_real_votes_are_judged_as_argmax_over_the_table_would(shared: Path) -> None:
    from fer_trainer.data.csv_rows import csv_rows
    from fer_trainer.data.open import Source, open_faces
    from fer_trainer.labels import word
    from fer_trainer.recipe import DataSection

    columns = [column.lower() for column in HEAD.split(",")]
    expected, majority = {}, set()
    for _, row in csv_rows(shared / "data" / "ferplus_votes.csv"):
        votes = np.array([int(row[column]) for column in columns])
        if votes.argmax() < 8:
            expected[row["file"]] = word(columns[int(votes.argmax())])
        votes[votes < 2] = 0  # as the authors' code does for its majority
        if votes.argmax() < 8 and votes.max() > 0.5 * votes.sum():
            majority.add(row["file"])
    data = shared / "data"
    source = Source(data / "fer2013.tar.xz", votes=data / "ferplus_votes.csv")
    tested = open_faces(source, DataSection(targets="distribution")).only(Split.TEST)
    assert len(tested) == 3_545
    assert [tested.labels[number] for number in tested.hard_labels] == [
        expected[name] for name in tested.names
    ]
    agreed = open_faces(source, DataSection(targets="agreed")).only(Split.TEST)
    assert len(agreed) == 2_729
    by_authors = open_faces(source, DataSection(targets="majority")).only(Split.TEST)
    assert set(by_authors.names) == {name for name in majority if name.startswith("PrivateTest")}
    assert len(by_authors) == 3_152
