from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from PIL import Image

from fer_agent.camera.backends.clips import play, read_image
from fer_agent.camera.backends.opencv import silence_logging
from fer_agent.errors import CameraError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

silence_logging()  # OpenCV reads its settings once, and these tests write clips first

PICTURE = np.random.default_rng(3).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def write_video(path: Path, count: int, *, fps: float = 10.0, fourcc: str = "MJPG") -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*fourcc), fps, (64, 48))
    for index in range(count):
        writer.write(np.full((48, 64, 3), index * 8 % 256, np.uint8))
    writer.release()
    return path


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_video_gives_every_picture_with_its_time(tmp_path: Path) -> None:
    pictures = list(play(write_video(tmp_path / "clip.avi", 12), fps=30))
    assert [round(one.at_s, 3) for one in pictures] == [index / 10 for index in range(12)]
    assert all(one.bgr.shape == (48, 64, 3) for one in pictures)
    assert [round(float(one.bgr.mean()) / 8) for one in pictures] == list(range(12))


def test_gif_keeps_its_own_delays(tmp_path: Path) -> None:
    shades = [Image.new("L", (20, 10), shade) for shade in (0, 60, 120, 180)]
    path = tmp_path / "delays.gif"
    shades[0].save(path, save_all=True, append_images=shades[1:], duration=[100, 300, 50, 100])
    pictures = list(play(path, fps=30))
    assert [round(one.at_s, 2) for one in pictures] == [0.0, 0.1, 0.4, 0.45]
    assert [int(one.bgr.mean()) for one in pictures] == [0, 60, 120, 180]


def test_real_gif_is_whole(shared: Path) -> None:
    pictures = list(play(shared / "media" / "head-pose-face-detection-female.gif", fps=30))
    assert len(pictures) == 23
    assert pictures[0].bgr.shape == (270, 480, 3)
    assert pictures[-1].at_s == pytest.approx(1.83, abs=0.02)


def test_folder_is_sorted_as_people_count_and_may_mix_sizes(tmp_path: Path) -> None:
    for number, size in ((10, (9, 7)), (9, (5, 4)), (1, (3, 2))):
        Image.new("RGB", size, (number, number, number)).save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    pictures = list(play(tmp_path, fps=4))
    assert [int(one.bgr[0, 0, 0]) for one in pictures] == [1, 9, 10]
    assert [one.bgr.shape[:2] for one in pictures] == [(2, 3), (4, 5), (7, 9)]
    assert [one.at_s for one in pictures] == [0.0, 0.25, 0.5]


def test_broken_picture_in_a_folder_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:20])
    assert len(list(play(tmp_path, fps=5))) == 1
    assert "b.png" in caplog.text


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (Image.new("RGB", (1, 1), (90, 90, 90)), "PNG"),
        (Image.new("L", (31, 17), 90), "JPEG"),
        (Image.new("RGBA", (31, 17), (90, 90, 90, 10)), "PNG"),
        (Image.fromarray(np.full((17, 31), 90 * 257, np.uint16)), "PNG"),
        (Image.fromarray(np.full((17, 31), 90 * 257, np.uint16)), "TIFF"),
        (Image.new("P", (31, 17)), "PNG"),
        (Image.new("1", (31, 17)), "PNG"),
        (Image.new("CMYK", (31, 17)), "JPEG"),
        (Image.new("RGB", (4000, 4000), (90, 90, 90)), "JPEG"),
        (Image.new("RGB", (31, 17), (90, 90, 90)), "WEBP"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.mode}-{value.size[0]}",
)
def test_any_picture_becomes_8_bit_colour(tmp_path: Path, image: Image.Image, kind: str) -> None:
    path = tmp_path / "picture"
    path.write_bytes(encoded(image, kind))
    (picture,) = play(path, fps=1)
    assert picture.bgr.dtype == np.uint8
    assert picture.bgr.shape == (image.size[1], image.size[0], 3)
    if image.mode in ("RGB", "L", "RGBA", "I;16"):
        assert abs(int(picture.bgr[0, 0, 0]) - 90) <= 1


def test_exif_orientation_is_honoured(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    path = tmp_path / "phone.jpg"
    path.write_bytes(encoded(Image.fromarray(PICTURE), "JPEG", exif=exif))
    assert read_image(path).shape == (64, 48, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_truncated_image_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "picture"
    data = encoded(Image.fromarray(PICTURE), kind)
    path.write_bytes(data[: len(data) * 3 // 4])
    with pytest.raises(CameraError, match=r"damaged|truncated|cannot"):
        list(play(path, fps=1))


def test_truncated_jpeg_with_a_whole_thumbnail_is_refused(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(PICTURE), "JPEG")
    note = b"Exif\0\0" + encoded(Image.new("RGB", (8, 8)), "JPEG")
    whole = data[:2] + b"\xff\xe1" + (len(note) + 2).to_bytes(2, "big") + note + data[2:]
    path = tmp_path / "picture.jpg"
    path.write_bytes(whole)
    assert read_image(path).shape == (48, 64, 3)
    path.write_bytes(whole[:-200])
    with pytest.raises(CameraError):
        read_image(path)


def test_a_film_that_changes_its_size_goes_on_in_its_first_one(
    tmp_path: Path, encode: Callable[[Path, str, int], bytes]
) -> None:
    films = [encode(tmp_path / f"{size}.ts", size, 20) for size in ("320x240", "640x480")]
    for number, (first, second) in enumerate((films, films[::-1])):
        path = tmp_path / f"changing{number}.ts"
        path.write_bytes(first + second)
        pictures = [picture.bgr for picture in play(path, fps=10)]
        assert len(pictures) == 40
        assert len({picture.shape for picture in pictures}) == 1
        # The test picture begins again: the same content, whatever it was scaled from.
        one, later, again = (pictures[index].astype(int) for index in (5, 15, 25))
        assert np.abs(one - again).mean() < np.abs(one - later).mean() / 2


def text_file(path: Path) -> Path:
    path.write_text("hello, I am no video\n" * 200)
    return path


def without_pictures(path: Path) -> Path:
    write_video(path.with_suffix(".avi"), 0)
    return path.with_suffix(".avi")


def cut_before_index(path: Path) -> Path:
    data = write_video(path, 20, fourcc="mp4v").read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def empty_folder(path: Path) -> Path:
    path.mkdir()
    return path


def folder_of_broken(path: Path) -> Path:
    path.mkdir()
    (path / "a.png").write_bytes(b"\x89PNG")
    return path


def empty_file(path: Path) -> Path:
    path.touch()
    return path


def fifo(path: Path) -> Path:
    import os

    os.mkfifo(path)
    return path


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path,
        text_file,
        without_pictures,
        cut_before_index,
        empty_folder,
        folder_of_broken,
        empty_file,
        fifo,
    ],
)
def test_unusable_media_is_one_clear_error(
    tmp_path: Path, make: Callable[[Path], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    path = make(tmp_path / "media.mp4")
    capfd.readouterr()  # the writer may have complained
    with pytest.raises(CameraError) as caught:
        list(play(path, fps=10))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy
    assert capfd.readouterr().err == ""


def test_unreadable_file_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pathlib import Path as RealPath

    def refuse(*_: object, **__: object) -> object:  # root, as in a container, may read anything
        raise PermissionError(13, "Permission denied")

    path = write_video(tmp_path / "secret.avi", 2)
    monkeypatch.setattr(RealPath, "open", refuse)
    with pytest.raises(CameraError, match="Permission denied"):
        list(play(path, fps=10))


def test_video_cut_in_the_middle_gives_what_decodes_and_warns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_video(tmp_path / "cut.avi", 40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with caplog.at_level(logging.WARNING):
        pictures = list(play(path, fps=10))
    assert 5 < len(pictures) < 30
    assert "truncated" in caplog.text
    assert capfd.readouterr().err == ""


def test_gif_cut_in_the_middle_warns(
    tmp_path: Path, shared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = (shared / "media" / "head-pose-face-detection-female.gif").read_bytes()
    path = tmp_path / "cut.gif"
    path.write_bytes(data[: len(data) // 2])
    assert len(list(play(path, fps=10))) > 5
    assert "truncated" in caplog.text


def test_stopping_early_closes_the_file(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", 5)
    clip = play(path, fps=10)
    next(clip)
    clip.close()
    with pytest.raises(StopIteration):
        next(clip)
    assert str(path) not in {str(one.readlink()) for one in open_descriptors()}


def open_descriptors() -> list[Path]:
    from pathlib import Path as RealPath

    return [one for one in RealPath("/proc/self/fd").iterdir() if one.exists()]
