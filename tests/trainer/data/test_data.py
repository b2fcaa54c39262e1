"""Every source in its published layout, and the errors about bad ones."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from fer_trainer.data import affectnet, cache, ckplus, fer2013, folders, rafdb
from fer_trainer.data.duplicates import also_in_training, find_duplicates
from fer_trainer.data.faceset import FaceSet, Split
from fer_trainer.data.kinds import parse_kind
from fer_trainer.data.open import Source, labelled, mapped, open_faces, recognise
from fer_trainer.errors import DataError, StorageError
from fer_trainer.labels import BASIC_7, mapping
from fer_trainer.recipe import DataSection

if TYPE_CHECKING:
    from pathlib import Path


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def gray(value: int, side: int = 48) -> np.ndarray:
    return np.full((side, side), value, np.uint8)


def write_csv(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("emotion", "pixels", "Usage"), *rows])
    return path


def pixels(image: np.ndarray) -> str:
    return " ".join(str(value) for value in image.ravel())


def test_folder_archive_and_csv_give_the_same_images(
    faces: FaceSet, fer2013_folder: Path, fer2013_archive: Path, tmp_path: Path
) -> None:
    from_folder, folder_hash = fer2013.load(fer2013_folder, check_counts=False)
    from_archive, archive_hash = fer2013.load(fer2013_archive, check_counts=False)
    usage = {Split.TRAIN: "Training", Split.VALID: "PublicTest", Split.TEST: "PrivateTest"}
    rows = [
        (
            str(fer2013.CSV_CLASSES.index(faces.labels[label])),
            pixels(image),
            usage[Split(split)],
        )
        for image, label, split in zip(faces.images, faces.hard_labels, faces.split, strict=True)
    ]
    from_csv, _ = fer2013.load(write_csv(tmp_path / "fer2013.csv", rows), check_counts=False)
    assert folder_hash == archive_hash
    order = np.argsort(from_folder.names)
    expected = faces.images[np.argsort(faces.names)]
    assert np.array_equal(from_folder.images[order], expected)
    assert np.array_equal(from_archive.images[np.argsort(from_archive.names)], expected)
    assert np.array_equal(from_csv.images, faces.images)
    assert from_csv.label == tuple(faces.labels[i] for i in faces.hard_labels)
    assert from_csv.split.tolist() == faces.split.tolist()


def test_second_opening_does_not_decode(
    fer2013_archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = fer2013.load(fer2013_archive, check_counts=False)
    monkeypatch.setattr(fer2013, "decode_exact", lambda *_: pytest.fail("decoded again"))
    second, _ = fer2013.load(fer2013_archive, check_counts=False)
    assert isinstance(second.images, np.memmap)
    assert np.array_equal(first.images, second.images)


def test_other_counts_than_the_official_ones_are_refused(fer2013_archive: Path) -> None:
    with pytest.raises(DataError, match=r"28709 images for train, this copy has 70"):
        fer2013.load(fer2013_archive)


def test_truncated_archive_is_named(fer2013_archive: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.tar.xz"
    content = fer2013_archive.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"cut\.tar\.xz cannot be read to its end"):
        fer2013.load(cut, check_counts=False)
    cut.write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match="cannot be read to its end") as caught:
        fer2013.load(cut, check_counts=False)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (("9", pixels(gray(1)), "Training"), r"fer2013\.csv row 2 has the label '9'"),
        (("²", pixels(gray(1)), "Training"), "row 2 has the label '²'"),
        (("-1", pixels(gray(1)), "Training"), "row 2 has the label '-1'"),
        (("1", "1 2 3", "Training"), "row 2 has 3 pixels"),
        (("1", pixels(gray(1)) + "x", "Training"), "row 2 has pixels that are no numbers"),
        (("1", pixels(gray(1)).replace("1", "9" * 30, 1), "Training"), "are no numbers"),
        (("1", pixels(gray(1)).replace("1", "300", 1), "Training"), "outside 0 to 255"),
        (("1", "", "Training"), "row 2 has 0 pixels"),
        (("1", pixels(gray(1)), "Elsewhere"), "row 2 has the unknown usage 'Elsewhere'"),
    ],
)
def test_broken_csv_rows_are_numbered(tmp_path: Path, row: tuple[str, str, str], said: str) -> None:
    path = write_csv(tmp_path / "fer2013.csv", [("0", pixels(gray(0)), "Training"), row])
    with pytest.raises(DataError, match=said):
        fer2013.load(path, check_counts=False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"1\n", r"row 1 has not as many cells as the head"),
        (b"1,2,Training,more\n", r"row 1 has not as many cells as the head"),
        (b"\xff\xfe", "is no UTF-8 text"),
        (b"1," + b"5 " * 100_000 + b",Training\n", "row 1 cannot be read: field larger"),
        (b"", "has no rows"),
    ],
)
def test_csv_that_is_no_table_is_named(tmp_path: Path, text: bytes, said: str) -> None:
    path = tmp_path / "fer2013.csv"
    path.write_bytes(b"emotion,pixels,Usage\n" + text)
    with pytest.raises(DataError, match=said):
        fer2013.load(path, check_counts=False)


def test_csv_without_its_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="lacks the column Usage, emotion, pixels"):
        fer2013.load(path)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((48, 40), np.uint8), "is 40x48 pixels, not 48x48"),
        (np.dstack([gray(1), gray(2), gray(200)]), "is a colour image"),
    ],
)
def test_fer2013_images_must_be_48x48_and_gray(
    tmp_path: Path, image: np.ndarray, said: str
) -> None:
    save(tmp_path / "train" / "happy" / "Training_1.png", image)
    (tmp_path / "train" / "happy" / "Training_1.png").rename(
        tmp_path / "train" / "happy" / "Training_1.jpg"
    )
    with pytest.raises(DataError, match=said):
        fer2013.load(tmp_path, check_counts=False)


def test_unknown_class_and_corrupt_file_are_named(tmp_path: Path) -> None:
    place = tmp_path / "train" / "bored"
    save(place / "Training_1.png", gray(5))
    (place / "Training_1.png").rename(place / "Training_1.jpg")
    with pytest.raises(DataError, match="unknown class 'bored'"):
        fer2013.load(tmp_path, check_counts=False)
    place.rename(tmp_path / "train" / "happy")
    (tmp_path / "train" / "happy" / "Training_1.jpg").write_bytes(b"\xff\xd8 not a picture")
    with pytest.raises(DataError, match=r"Training_1\.jpg is not a readable"):
        fer2013.load(tmp_path, check_counts=False)


def test_full_disk_leaves_no_half_cache(
    fer2013_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_CACHE", str(tmp_path))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.np, "save", full)
    with pytest.raises(StorageError, match="No space left"):
        fer2013.load(fer2013_folder, check_counts=False)
    assert list(tmp_path.iterdir()) == []


def write_affectnet_npy(root: Path, tests_per_class: int) -> Path:
    for folder, per_class in (("train_set", 6), ("val_set", tests_per_class)):
        (root / folder / "annotations").mkdir(parents=True)
        for label in range(9):
            for number in range(per_class):
                name = f"{label}{number:03}"
                save(root / folder / "images" / f"{name}.jpg", gray(20 * label + 5, 96))
                np.save(root / folder / "annotations" / f"{name}_exp.npy", str(label))
    return root


def test_affectnet_annotations_give_seven_or_eight_classes(tmp_path: Path) -> None:
    root = write_affectnet_npy(tmp_path, 2)
    eight, _ = affectnet.load(root, 8, check_counts=False)
    seven, _ = affectnet.load(root, 7, check_counts=False)
    assert set(eight.label) == set(affectnet.CLASSES)
    assert set(seven.label) == set(affectnet.CLASSES) - {"contempt"}
    assert (eight.split == Split.TEST).sum() == 16
    assert eight.images.shape[1:] == (48, 48)
    with pytest.raises(DataError, match="4000 validation images for 8 classes, this copy has 16"):
        affectnet.load(root, 8)
    with pytest.raises(DataError, match="3500 validation images for 7 classes, this copy has 14"):
        affectnet.load(root, 7)


def test_affectnet_csv_crops_the_face_box(tmp_path: Path) -> None:
    picture = np.zeros((100, 100), np.uint8)
    picture[20:80, 30:90] = 255
    save(tmp_path / "Manually_Annotated_Images" / "1" / "a.png", picture)
    head = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression"
    row = "1/a.png,30,20,60,60,,{}\n"
    (tmp_path / "training.csv").write_text(f"{head}\n" + row.format(3) + row.format(9))
    (tmp_path / "validation.csv").write_text(f"{head}\n" + row.format(0))
    found, _ = affectnet.load(tmp_path, 8, check_counts=False)
    assert found.label == ("surprise", "neutral")
    assert found.images.min() == 255
    (tmp_path / "validation.csv").write_text(f"{head}\n" + row.format(11))
    with pytest.raises(DataError, match=r"validation\.csv row 1 has the label '11'"):
        affectnet.load(tmp_path, 8, check_counts=False)
    (tmp_path / "validation.csv").write_text(f"{head}\n" + row.format(1).replace("60", "x"))
    with pytest.raises(DataError, match=r"validation\.csv row 1 has no face box"):
        affectnet.load(tmp_path, 8, check_counts=False)
    (tmp_path / "validation.csv").unlink()
    with pytest.raises(DataError, match=r"cannot read .*validation\.csv"):
        affectnet.load(tmp_path, 8, check_counts=False)


def test_raf_db_reads_its_list(tmp_path: Path) -> None:
    lines = []
    for label in range(1, 8):
        for split in ("train", "test"):
            name = f"{split}_{label:05}"
            save(tmp_path / "Image" / "aligned" / f"{name}_aligned.jpg", gray(30 * label, 100))
            lines.append(f"{name}.jpg {label}")
    table = tmp_path / "EmoLabel" / rafdb.LIST
    table.parent.mkdir()
    table.write_text("\n".join(lines))
    found, _ = rafdb.load(tmp_path, check_counts=False)
    assert set(found.label) == set(rafdb.CLASSES)
    assert (found.split == Split.TEST).sum() == 7
    with pytest.raises(DataError, match="12271 pictures for train, this copy has 7"):
        rafdb.load(tmp_path)
    table.write_text("train_00001.jpg 8\n")
    with pytest.raises(DataError, match="row 1 is"):
        rafdb.load(tmp_path, check_counts=False)


def test_ck48_keeps_a_person_in_one_split(tmp_path: Path) -> None:
    for subject in range(40):
        for label in ("anger", "happy"):
            save(tmp_path / label / f"S{subject:03}_001_00000001.png", gray(subject))
    found, _ = ckplus.load(tmp_path, check_counts=False)
    subjects = [name.split("/")[1].split("_")[0] for name in found.names]
    splits = {subject: set() for subject in subjects}
    for subject, split in zip(subjects, found.split.tolist(), strict=True):
        splits[subject].add(split)
    assert all(len(own) == 1 for own in splits.values())
    assert {0, 1, 2} == set(found.split.tolist())
    with pytest.raises(DataError, match="981 pictures, this copy has 80"):
        ckplus.load(tmp_path)


def test_class_folders_are_scaled_and_split_for_ever(tmp_path: Path) -> None:
    for label in ("Happiness", "sadness"):
        for number in range(30):
            colour = np.dstack([gray(number, 64)] * 3)
            save(tmp_path / label / f"{number}.png", colour)
    before, _ = folders.load(tmp_path)
    chosen = dict(zip(before.names, before.split.tolist(), strict=True))
    (tmp_path / "sadness" / "29.png").unlink()
    after, _ = folders.load(tmp_path)
    assert all(chosen[n] == s for n, s in zip(after.names, after.split.tolist(), strict=True))
    assert {0, 1, 2} == set(before.split.tolist())
    assert labelled("own", before, "").labels == ("happy", "sad")


def test_corrupt_pictures_are_all_named(tmp_path: Path) -> None:
    save(tmp_path / "happy" / "good.png", gray(1))
    for name in ("bad", "worse"):
        (tmp_path / "happy" / f"{name}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"2 bad pictures: .*bad\.png.*worse\.png"):
        folders.load(tmp_path)


def test_no_picture_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no picture"):
        folders.load(tmp_path)


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["train/happy/Training_1.jpg"], "fer2013"),
        (["anger/S010_004_00000017.png"], "ck48"),
        (["a/1.png"], "folders"),
        (["EmoLabel/list_patition_label.txt"], "raf-db"),
        (["training.csv"], "affectnet-8"),
    ],
)
def test_kinds_are_recognised(tmp_path: Path, names: list[str], kind: str) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert recognise(tmp_path) == kind
    assert parse_kind(kind) == kind


def test_unknown_kind_and_missing_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no kind"):
        parse_kind("imagenet")
    with pytest.raises(DataError, match="there is no"):
        open_faces(Source(tmp_path / "gone"), DataSection())


def test_label_map_merges_and_drops(faces: FaceSet) -> None:
    merged = mapped(faces, {"disgust": "angry", "surprise": "drop"})
    assert merged.labels == ("angry", "fear", "happy", "neutral", "sad")
    assert len(merged) == len(faces) - (faces.hard_labels == BASIC_7.index("surprise")).sum()
    assert (merged.hard_labels == 0).sum() == 2 * (faces.hard_labels == 0).sum()
    with pytest.raises(DataError, match="names the class 'rage'"):
        mapping(BASIC_7, {"rage": "angry"})


def test_class_left_empty_by_a_map_is_refused(faces: FaceSet) -> None:
    angry = faces.hard_labels == 0
    without = faces.take(~(angry & (faces.split == Split.TRAIN)))
    with pytest.raises(DataError, match="class angry has no training image"):
        mapped(without, {"surprise": "drop"})


def with_copies(faces: FaceSet) -> FaceSet:
    """Two test images become copies of training images; two training images copies of another."""
    images = np.array(faces.images)
    trained, tested = faces.where(Split.TRAIN), faces.where(Split.TEST)
    images[tested[:2]] = images[trained[:2]]
    images[trained[-1]] = images[trained[0]]
    return FaceSet(
        faces.name, faces.labels, images, faces.targets, faces.split, faces.names, faces.sha256
    )


def test_copies_of_training_images_are_found(faces: FaceSet) -> None:
    copied = with_copies(faces)
    found = find_duplicates(copied)
    assert found.in_training == {"valid": 0, "test": 2}
    assert found.conflicting_groups == 1
    assert also_in_training(copied).nonzero()[0].tolist() == faces.where(Split.TEST)[:2].tolist()


def test_limit_spreads_over_the_classes(faces: FaceSet) -> None:
    few = faces.limited(7)
    for split in Split:
        assert sorted(few.hard_labels[few.where(split)]) == list(range(7))


@pytest.mark.xdist_group("fer2013")
def test_shared_fer2013_has_the_official_counts_and_copies(shared: Path) -> None:
    found = open_faces(Source(shared / "data" / "fer2013.tar.xz"), DataSection())
    assert found.labels == BASIC_7
    copies = find_duplicates(found)
    assert copies.in_training == {"valid": 280, "test": 288}
    assert copies.conflicting_groups == 39


def test_index_of_the_cache_is_plain_json(fer2013_archive: Path) -> None:
    fer2013.load(fer2013_archive, check_counts=False)
    index = next(cache.folder().glob("*/index.json"))
    assert set(json.loads(index.read_text())) == {"label", "names", "sha256"}
