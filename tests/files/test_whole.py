"""Files that are whole or not there, and nothing else touched."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.files.whole import (
    copy_whole,
    link_whole,
    write_text,
    write_together,
)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_text(path, "new"),
        lambda path: copy_whole(Path("source"), path),
        lambda path: link_whole(Path("source"), path),
    ],
    ids=["write", "copy", "link"],
)
def test_a_link_at_the_temporary_name_is_not_written_through(
    own_folder: Path, write: Callable[[Path], None]
) -> None:
    Path("source").write_text("new")
    Path("elsewhere").write_text("precious")
    Path(".a.txt.tmp").symlink_to("elsewhere")
    write(own_folder / "a.txt")
    assert Path("elsewhere").read_text() == "precious"
    assert Path("a.txt").read_text() == "new"
    assert not Path("a.txt").is_symlink()
    assert not Path(".a.txt.tmp").is_symlink()


def test_a_file_that_has_the_name_already_leaves_no_third_one() -> None:
    Path("one").write_text("content")
    for _ in range(2):
        link_whole(Path("one"), Path("two"))
    assert {path.name for path in Path().iterdir()} == {"one", "two"}


@pytest.mark.parametrize(
    ("number", "mend"),
    [
        (errno.ENOSPC, "make room, then give the command again"),
        (errno.EROFS, "make it writable, then give the command again"),
        (errno.EACCES, "make it writable, then"),
    ],
)
def test_what_cannot_be_written_is_one_line_with_its_mend(
    number: int, mend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    path = tmp_path / "file"
    path.write_text("mine")
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError, match=f"cannot be written .*; {mend}") as caught:
        write_text(path, "new")
    monkeypatch.undo()
    assert "\n" not in str(caught.value)
    assert path.read_text() == "mine"


def test_files_that_belong_together_are_all_new_or_all_old(tmp_path: Path) -> None:
    def parts_that_end() -> Iterator[str]:
        yield "new"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    first, second = tmp_path / "first", tmp_path / "second"
    write_together({first: ["old"], second: ["o", "ld"]})
    with pytest.raises(UserError, match=r"all files .* as before; make room, .* again$") as caught:
        write_together({first: ["new"], second: parts_that_end()})
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "first": "old",
        "second": "old",
    }
    second.unlink()
    second.mkdir()  # of which the rename alone would tell, after the first one's
    with pytest.raises(UserError, match="Is a directory"):
        write_together({first: ["new"], second: ["new"]})
    assert first.read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"first", "second"}
