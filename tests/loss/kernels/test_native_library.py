"""The compiled library: built, kept, and what happens where it cannot be."""

import ctypes
import errno
import hashlib
import io
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from softmax_gradient_tampering import tampered_cross_entropy
from softmax_gradient_tampering.loss.kernels.cpu import native_library as module
from softmax_gradient_tampering.loss.kernels.cpu.native_library import (
    CHECKSUM_BYTES,
    cache_folder,
    native_library,
)
from softmax_gradient_tampering.loss.kernels.selection import describe_kernel

needs_library = pytest.mark.skipif(
    native_library() is None, reason="needs Linux, g++ and a processor with AVX2"
)
pytestmark = pytest.mark.filterwarnings("error:.*the loss:RuntimeWarning", "error:.*the compiled")
REAL_COMPILER = shutil.which("g++")
NOT_KEPT = "the compiled loss cannot be kept .*every process compiles its own"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library as g++ builds it: once for all tests, whose compiler then copies it."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        native_library.cache_clear()
        assert native_library() is not None
        native_library.cache_clear()
        content = kept().read_bytes()
    library = folder / "built"
    library.write_bytes(content[:-CHECKSUM_BYTES])
    return library


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache that holds nothing yet, and no library loaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    native_library.cache_clear()
    yield tmp_path / "cache"
    native_library.cache_clear()


Compiler = Callable[[str], None]


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compiler:
    """Put a g++ of this text before all others; in it $out is the path of what it builds."""
    programs = tmp_path / "programs"
    programs.mkdir()

    def make(text: str) -> None:
        count = f"echo built >> {tmp_path}/builds"
        program = programs / "g++"
        program.write_text(f"#!/bin/sh\n{count}\nfor out; do :; done\n{text}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")

    return make


@pytest.fixture
def copying(built: Path, compiler: Compiler) -> None:
    """A compiler that builds the library at once."""
    compiler(f"cp {built} $out")


def num_builds() -> int:
    path = Path("builds")
    return len(path.read_text().splitlines()) if path.exists() else 0


def kept() -> Path:
    (path,) = cache_folder().iterdir()
    return path


def is_whole(path: Path) -> bool:
    content = path.read_bytes()
    return hashlib.sha256(content[:-CHECKSUM_BYTES]).digest() == content[-CHECKSUM_BYTES:]


def load_again() -> ctypes.CDLL | None:
    native_library.cache_clear()
    return native_library()


def assert_blocks_compute() -> None:
    """The value and gradient are right, and quietly those of torch's operations."""
    assert describe_kernel("auto", torch.device("cpu")) == "blocks"
    logits = torch.arange(35.0).sin().reshape(5, 7).requires_grad_()
    target = torch.arange(5)
    results = []
    for kernel in ("auto", "blocks"):
        loss = tampered_cross_entropy(logits, target, 0.25, kernel=kernel)
        results.append((loss, *torch.autograd.grad(loss, logits)))
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


@needs_library
def test_it_is_built_once_and_kept_where_only_its_user_can_write(copying: None) -> None:
    assert describe_kernel("auto", torch.device("cpu")).startswith("native (AVX")
    assert load_again() is not None
    assert num_builds() == 1
    assert is_whole(kept())
    for path in (kept(), kept().parent):
        assert not path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def enlarge(path: Path) -> None:
    with path.open("ab") as file:
        file.truncate(2**40)  # without taking room on the disk


def strip(path: Path) -> None:
    """As it was kept by a program that recorded no checksum."""
    path.write_bytes(path.read_bytes()[:-CHECKSUM_BYTES])


def make_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_a_link(path: Path) -> None:
    other = path.rename("another")
    path.symlink_to(other.absolute())


def let_others_write(path: Path) -> None:
    path.chmod(0o777)


@needs_library
@pytest.mark.parametrize(
    "damage",
    [flip, cut, lengthen, empty, enlarge, strip, make_a_pipe, make_a_link, let_others_write],
)
def test_another_file_than_was_kept_is_replaced_and_never_loaded(
    copying: None, damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert native_library() is not None
    path = kept()
    whole = path.read_bytes()
    path.unlink()  # the one that is loaded stays as it is
    path.write_bytes(whole)
    damage(path)
    loaded = []
    original = ctypes.CDLL

    def load(name: str) -> ctypes.CDLL:
        loaded.append(Path(name))
        return original(name)

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert load_again() is not None
    assert path not in loaded
    assert num_builds() == 2
    assert stat.S_ISREG(kept().lstat().st_mode)
    assert kept() == path
    assert path.read_bytes() == whole
    assert load_again() is not None
    assert num_builds() == 2
    assert loaded[-1] == path


@needs_library
def test_a_library_with_other_functions_is_replaced(copying: None, tmp_path: Path) -> None:
    assert native_library() is not None
    path = kept()
    whole = path.read_bytes()
    path.unlink()
    (tmp_path / "other.cpp").write_text('extern "C" int sgt_forward() { return 0; }')
    assert REAL_COMPILER is not None
    command = [REAL_COMPILER, "-shared", "-fPIC", str(tmp_path / "other.cpp"), "-o", str(path)]
    subprocess.run(command, check=True)
    content = path.read_bytes()
    path.write_bytes(content + hashlib.sha256(content).digest())
    assert load_again() is not None
    assert num_builds() == 2
    assert path.read_bytes() == whole


def put_a_file_in_its_place(cache: Path, patch: pytest.MonkeyPatch) -> None:
    cache.write_text("a file, not a folder")


def fill_the_disk(cache: Path, patch: pytest.MonkeyPatch) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    patch.setattr(os, "fsync", fsync)


def make_it_read_only(cache: Path, patch: pytest.MonkeyPatch) -> None:
    def mkstemp(**_: object) -> tuple[int, str]:  # the mode of a folder does not stop root
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    patch.setattr(tempfile, "mkstemp", mkstemp)


def let_others_write_to_it(cache: Path, patch: pytest.MonkeyPatch) -> None:
    folder = cache_folder()
    folder.mkdir(parents=True)
    folder.chmod(0o777)


def put_a_folder_in_the_place_of_the_library(cache: Path, patch: pytest.MonkeyPatch) -> None:
    assert native_library() is not None
    path = kept()
    path.unlink()
    path.mkdir()


def have_no_home(cache: Path, patch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    patch.setenv("XDG_CACHE_HOME", "")
    patch.setattr(Path, "home", home)


@needs_library
@pytest.mark.parametrize(
    "obstruct",
    [
        put_a_file_in_its_place,
        fill_the_disk,
        make_it_read_only,
        let_others_write_to_it,
        put_a_folder_in_the_place_of_the_library,
        have_no_home,
    ],
)
def test_where_it_cannot_be_kept_each_process_builds_its_own_and_says_so(
    copying: None,
    cache: Path,
    obstruct: Callable[[Path, pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    obstruct(cache, monkeypatch)
    before = num_builds()
    files = [path for path in cache.rglob("*") if not path.is_dir()]
    for number in (1, 2):
        with pytest.warns(RuntimeWarning, match=NOT_KEPT):
            assert load_again() is not None
        assert native_library() is not None  # the process has it, and says no more
        assert num_builds() == before + number
    assert [path for path in cache.rglob("*") if not path.is_dir()] == files


def is_running(words: str) -> bool:
    """Whether a process has these words in its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if words in path.read_bytes().replace(b"\0", b" ").decode(errors="replace"):
                return True
        except OSError:  # it has just ended
            continue
    return False


@needs_library
def test_a_compiler_that_hangs_is_given_up_with_its_children_and_said_once(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang = f"sleep 1000.{os.getpid()}"
    compiler(f"{hang} & wait")
    monkeypatch.setattr(module, "BUILD_SECONDS", 3)
    with pytest.warns(RuntimeWarning, match="was ended, as it had not after 3 s") as warned:
        assert native_library() is None
    assert len(warned) == 1
    assert list(cache_folder().iterdir()) == []
    assert_blocks_compute()  # nothing is said or tried again
    until = time.monotonic() + 60  # the system ends a process when it comes to it
    while is_running(hang) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_running(hang)


@needs_library
@pytest.mark.parametrize("junk", ["echo junk > $out", "exit 0", ": > $out"])
def test_a_compiler_that_writes_junk_is_of_no_use_and_nothing_is_kept(
    compiler: Compiler, junk: str
) -> None:
    compiler(junk)
    with pytest.warns(RuntimeWarning, match="torch's operations compute it"):
        assert native_library() is None
    assert list(cache_folder().iterdir()) == []
    assert_blocks_compute()


@needs_library
def test_a_compiler_that_fails_is_said_and_the_blocks_compute(
    compiler: Compiler, capfd: pytest.CaptureFixture[str]
) -> None:
    compiler("echo no such flag >&2\nexit 1")
    with pytest.warns(RuntimeWarning, match=r"g\+\+ ended with exit code 1"):
        assert native_library() is None
    assert_blocks_compute()
    assert capfd.readouterr() == ("", "")


def test_without_a_compiler_the_blocks_compute(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_blocks_compute()
    assert capfd.readouterr() == ("", "")


@needs_library
def test_a_library_that_computes_wrongly_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = shutil.copytree(module.SOURCE.parent, tmp_path / "source")
    vectors = folder / "vectors.h"
    source = vectors.read_text()
    vectors.write_text(source.replace("series * r + 0.49999994f", "series * r + 0.6f"))
    assert vectors.read_text() != source
    monkeypatch.setattr(module, "SOURCE", folder / module.SOURCE.name)
    with pytest.warns(RuntimeWarning, match="is of no use"):
        assert native_library() is None
    assert list(cache_folder().iterdir()) == []
    assert_blocks_compute()


def test_a_processor_without_vector_instructions_has_the_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert_blocks_compute()


@needs_library
def test_two_processes_that_build_at_once_keep_a_whole_one(
    built: Path, compiler: Compiler, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    begun.mkdir()
    # Each waits for the other, but not for ever.
    wait = f"[ $(ls {begun} | wc -l) -ge 2 ] || sleep 0.1"
    compiler(f"touch {begun}/$$\nfor turn in $(seq 200); do {wait}; done\ncp {built} $out")
    name = module.__name__
    program = f"from {name} import native_library; assert native_library() is not None"
    command = [sys.executable, "-W", "error", "-c", program]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(300) for process in processes] == [0, 0]
    assert is_whole(kept())
    before = num_builds()
    assert native_library() is not None
    assert num_builds() == before


def test_the_cache_is_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    name = "softmax_gradient_tampering"
    assert cache_folder() == tmp_path / "cache" / name
    for ignored in ("", "relative/path"):  # as the standard of that variable says
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert cache_folder() == tmp_path / "home" / ".cache" / name


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@needs_library
def test_a_terminal_is_told_of_the_build_and_of_nothing_else(
    copying: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert native_library() is not None
    said = terminal.getvalue()
    assert said.startswith("Compiling the loss for this processor")
    assert load_again() is not None
    assert terminal.getvalue() == said
    shutil.rmtree(cache_folder())
    terminal.close()
    assert load_again() is not None
