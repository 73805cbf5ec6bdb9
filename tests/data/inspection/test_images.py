"""Image files of every kind: read sensibly, or refused with the reason."""

import errno
import os
import socket
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from softmax_gradient_tampering.data.folder.image_file import read_image
from softmax_gradient_tampering.data.inspection import images as inspection
from softmax_gradient_tampering.data.inspection.images import inspect_image, inspect_images

GREY = np.arange(48 * 40, dtype=np.uint16).reshape(48, 40) * 34
PHOTO = Image.fromarray(
    np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
).resize((40, 48), Image.Resampling.BICUBIC)


def with_transparency(path: Path) -> None:
    image = PHOTO.quantize(16)
    image.save(path, transparency=bytes([0, 128, *[255] * 14]))


def truncated(path: Path) -> None:
    PHOTO.resize((400, 480)).save(path)
    path.write_bytes(path.read_bytes()[:-5000])


def bind_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)  # a whole path may be too long


READABLE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "plain": ("a.jpg", lambda path: PHOTO.save(path), ""),
    "progressive": ("a.jpeg", lambda path: PHOTO.save(path, progressive=True), ""),
    "grey": ("a.jpg", lambda path: PHOTO.convert("L").save(path), ""),
    "PNG named .jpg": ("a.jpg", lambda path: PHOTO.save(path, "PNG"), "PNG named .jpg"),
    "WebP named .tif": ("a.tif", lambda path: PHOTO.save(path, "WEBP"), "WEBP named .tif"),
    "16-bit": ("a.png", lambda path: Image.fromarray(GREY).save(path), "16-bit grey, read as 8-bi"),
    "CMYK": ("a.jpg", lambda path: PHOTO.convert("CMYK").save(path), "CMYK, read as RGB"),
    "animated": (
        "a.png",
        lambda path: PHOTO.save(path, save_all=True, append_images=[PHOTO.rotate(90)]),
        "2 frames; the first is used",
    ),
    "palette with alpha": ("a.png", with_transparency, "transparency, which is left out"),
    "1x1": ("a.jpg", lambda path: PHOTO.resize((1, 1)).save(path), "1x1 pixels"),
}
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (truncated, "truncated"),
    "zero bytes": (lambda path: path.touch(), "an empty file, of 0 bytes"),
    "no image": (lambda path: path.write_bytes(b"%PDF-1.7\n" * 50), "not an image"),
    "20000x20000": (
        lambda path: Image.new("1", (20_000, 20_000)).save(path, "PNG"),
        "more than 178,956,970 pixels, which PIL takes for a decompression bomb",
    ),
    "folder": (lambda path: path.mkdir(), "not a regular file"),
    "pipe": (os.mkfifo, "not a regular file"),
    "socket": (bind_socket, "not a regular file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    "vanished": (lambda path: None, "no such file"),
    "32-bit": (
        lambda path: Image.fromarray(np.full((9, 9), 7e4, np.float32)).save(path, "TIFF"),
        "pixels of mode F, whose range is not known",
    ),
}


@pytest.mark.parametrize("kind", READABLE)
def test_what_can_be_read_is_read_in_full_and_what_is_unusual_noted(
    kind: str, tmp_path: Path
) -> None:
    name, make, note = READABLE[kind]
    path = tmp_path / name
    make(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = inspect_image(str(path))
        image = read_image(path, "RGB")
    assert found.problem == ""
    assert (found.width, found.height) == image.size
    assert [entry[: len(note)] for entry in found.notes] == ([note] if note else [])
    assert found.num_bytes == path.stat().st_size
    assert image.mode == "RGB"


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_read_is_told_with_the_reason(kind: str, tmp_path: Path) -> None:
    make, problem = BAD[kind]
    path = tmp_path / "a.jpg"
    make(path)
    found = inspect_image(str(path), with_digest=True)
    assert problem in found.problem
    assert "\n" not in found.problem
    assert (found.width, found.height) == (0, 0)
    of_the_moment = ("not a regular file", "no such file")
    assert found.lasts == (found.problem not in of_the_moment)


def test_permissions_are_told(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    path = tmp_path / "a.jpg"
    PHOTO.save(path)
    path.chmod(0)
    assert inspect_image(str(path)).problem == "Permission denied"


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "Input/output error"), MemoryError(), OSError("out of memory")]
)
def test_a_failure_of_the_moment_does_not_last(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    path = tmp_path / "a.jpg"
    PHOTO.save(path)
    monkeypatch.setattr(inspection, "read_image", fail)
    found = inspect_image(str(path))
    assert found.problem
    assert not found.lasts


def test_16_bits_are_scaled_and_not_cut_off(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    pixels = np.asarray(read_image(tmp_path / "a.png", "L"))
    assert (pixels == GREY >> 8).all()
    assert len(np.unique(pixels)) > 200


def test_the_colours_of_cmyk_palettes_and_first_frames_are_the_photos(tmp_path: Path) -> None:
    expected = {
        "CMYK": (PHOTO, 4),  # JPEG's loss on average; a wrong sign is off by a hundred
        "animated": (PHOTO, 0),
        "palette with alpha": (PHOTO.quantize(16).convert("RGB"), 0),
    }
    for kind, (image, tolerance) in expected.items():
        name, make, _ = READABLE[kind]
        make(tmp_path / name)
        pixels = np.asarray(read_image(tmp_path / name, "RGB")).astype(int)
        assert abs(pixels - np.asarray(image)).mean() <= tolerance, kind
        (tmp_path / name).unlink()


def test_transparency_shows_the_colour_beneath(tmp_path: Path) -> None:
    image = PHOTO.copy()
    image.putalpha(0)
    image.save(tmp_path / "a.png")
    assert (np.asarray(read_image(tmp_path / "a.png", "RGB")) == np.asarray(PHOTO)).all()


def test_inspections_come_in_order_whatever_the_number_of_threads(tmp_path: Path) -> None:
    paths = []
    for number in range(70):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (number + 1, 2)).save(path)
        paths.append(str(path))
    for num_threads in (1, 3):
        found = list(inspect_images(paths, num_threads))
        assert [entry.width for entry in found] == list(range(1, 71))


def test_a_known_file_is_taken_over_while_size_and_time_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    PHOTO.save(path)
    earlier = inspect_image(str(path))._replace(problem="as remembered")
    known = {str(path): earlier}
    assert list(inspect_images([str(path)], 1, known)) == [earlier]
    os.utime(path, ns=(1, 1))
    assert next(inspect_images([str(path)], 1, known)).problem == ""
    path.unlink()
    assert next(inspect_images([str(path)], 1, known)).problem == "no such file"


def test_a_file_that_does_not_answer_holds_nobody_who_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after a signal; the thread that reads it ends when the disk answers."""
    answer, begun = threading.Event(), threading.Event()

    def inspect(path: str, with_digest: bool = False) -> inspection.Inspection:
        if path == "dead":
            begun.set()
            assert answer.wait(300)
        return inspection.Inspection()

    monkeypatch.setattr(inspection, "inspect_image", inspect)
    found = inspect_images(["a"] * inspection._CHUNK + ["dead"], num_threads=2)
    try:
        next(found)
        assert begun.wait(300)
        found.close()  # type: ignore[attr-defined]
        assert not answer.is_set()
    finally:
        answer.set()
