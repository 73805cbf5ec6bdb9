"""The compiled kernel of `source/native.cpp`: built at first use, kept for later, or not there.

It needs Linux, g++ and a processor with AVX2 or AVX-512; the build takes five to seven seconds. It
is kept in `~/.cache/softmax_gradient_tampering`, or below XDG_CACHE_HOME, under a name that its
source and flags decide, and loaded from there only if nobody else can write to it and it is whole.
Where it cannot be built, or computes wrongly, there is none, and torch's operations do the work.
"""

import ctypes
import functools
import hashlib
import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path

import torch
import torch.nn.functional as F

SOURCE = Path(__file__).parent / "source" / "native.cpp"
# By what torch says of the processor. Without one of these, torch's operations are faster.
INSTRUCTION_FLAGS = {
    "AVX2": ("-mavx2", "-mfma", "-mf16c"),
    "AVX512": ("-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mfma", "-mf16c"),
}
# Without math errno and trapping, loops become vector instructions; results are IEEE's still.
FLAGS = (
    *("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math"),
    *("-fopenmp", "-fPIC", "-shared"),
)
BUILD_SECONDS = 60  # on busy cores; a compiler that takes longer hangs
MAX_BYTES = 2**26  # of a kept library, which has some 200 KB
CHECKSUM_BYTES = hashlib.sha256().digest_size
# As Problem of `source/problem.h`, the arguments of both passes: four addresses (0 for none), six
# integers, a double and three small integers. Packing them takes a third of a Structure's time.
PROBLEM = struct.Struct("@4P6qd3i")


class ClassBlock(ctypes.Structure):
    """As ClassBlock of `source/classes.h`: the logits of some classes of every row."""

    _fields_ = (
        ("z", ctypes.c_void_p),
        ("labels", ctypes.c_void_p),
        ("num_rows", ctypes.c_int64),
        ("first_class", ctypes.c_int64),
        ("size", ctypes.c_int64),
        ("ignore_index", ctypes.c_int64),
        ("num_threads", ctypes.c_int32),
    )


class RowSums(ctypes.Structure):
    """As RowSums of `source/classes.h`: what is summed over the classes, by rows."""

    _fields_ = (
        ("largest", ctypes.c_void_p),
        ("exp", ctypes.c_void_p),
        ("exp_tampered", ctypes.c_void_p),
        ("label_logit", ctypes.c_void_p),
    )


class Matrix(ctypes.Structure):
    """As Matrix of `source/products.h`: float32, anywhere in memory."""

    _fields_ = (
        ("at", ctypes.c_void_p),
        ("num_rows", ctypes.c_int64),
        ("num_columns", ctypes.c_int64),
        ("row_stride", ctypes.c_int64),
        ("column_stride", ctypes.c_int64),
    )


@functools.cache
def native_library() -> ctypes.CDLL | None:
    """The functions of `source/native.cpp`, or None where they cannot be had.

    The first call of a process loads them, and builds them where that was not done before. What
    every process would go through again is said in a warning.
    """
    flags = INSTRUCTION_FLAGS.get(torch.backends.cpu.get_cpu_capability())
    if sys.platform != "linux" or flags is None:
        return None
    kept_at, obstacle = None, ""
    try:
        kept_at = _find_place(flags)
        library = _load_kept(kept_at)
    except (OSError, RuntimeError) as error:  # no home, none that is ours, or one that fails
        library, obstacle = None, str(error)
    compiler = None if library else shutil.which("g++")
    if compiler is not None:
        try:
            library = _build([compiler, *FLAGS, *flags], kept_at, obstacle)
        except (OSError, subprocess.SubprocessError) as error:
            _warn(f"the loss could not be compiled ({error}); torch's operations compute it")
    return library


def cache_folder() -> Path:
    """Where the built library is kept: below XDG_CACHE_HOME, or else ~/.cache."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    home = named if named.is_absolute() else Path.home() / ".cache"
    return home / "softmax_gradient_tampering"


def _find_place(flags: tuple[str, ...]) -> Path:
    """The path of the kept library, whether it is there or not; its folder is made.

    Raises:
        OSError: the folder cannot be had.
        RuntimeError: there is no home.
    """
    sources = (SOURCE, *sorted(SOURCE.parent.glob("*.h")))
    contents = b"".join(source.read_bytes() for source in sources)
    key = hashlib.sha256(contents + " ".join((*FLAGS, *flags)).encode())
    folder = cache_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_ours_alone(folder.stat()):
        raise PermissionError(f"others can write to {folder}")
    return folder / f"native-{key.hexdigest()[:16]}.so"


def _load_kept(path: Path) -> ctypes.CDLL | None:
    """The kept library, if there is one and it is the one that was kept, to the last byte."""
    try:
        found = path.lstat()
        is_sound = stat.S_ISREG(found.st_mode) and found.st_size <= MAX_BYTES
        if not (is_sound and _is_ours_alone(found)):
            return None
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    library, checksum = content[:-CHECKSUM_BYTES], content[-CHECKSUM_BYTES:]
    return _load(path) if hashlib.sha256(library).digest() == checksum else None


def _build(command: list[str], kept_at: Path | None, obstacle: str) -> ctypes.CDLL | None:
    """Build and load, and keep for other processes where that can be done.

    Raises:
        OSError: there is no place to build in.
        subprocess.SubprocessError: the compiler failed, or did not end.
    """
    with suppress(AttributeError, OSError, ValueError):  # there is no standard error, or it is shut
        if sys.stderr.isatty():
            sys.stderr.write("Compiling the loss for this processor, which takes some seconds\n")
    # Where the compiler has its own files; what it leaves when it is ended is not waited for.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        built = Path(folder) / "native.so"
        _compile([*command, str(SOURCE), "-o", str(built)])
        library = None
        if kept_at is not None:
            try:
                library = _keep(built.read_bytes(), kept_at)
            except OSError as error:
                obstacle = str(error)
        if library is None:  # not kept, or kept where no library may be loaded from
            library = _load(built)
            obstacle = obstacle or f"it cannot be loaded from {kept_at}"
            if library is None:
                _warn("what g++ made of the loss is of no use; torch's operations compute it")
            else:
                _warn(
                    f"the compiled loss cannot be kept ({obstacle}); every process compiles its "
                    "own, for some seconds. XDG_CACHE_HOME may name another folder"
                )
        return library


def _compile(command: list[str]) -> None:
    """Run a compiler; one that does not end is ended, with the programs that it has started.

    Raises:
        OSError: it cannot be started.
        subprocess.SubprocessError: it failed, or did not end.
    """
    null = subprocess.DEVNULL
    # In a session of its own: a signal to the program's group does not break it off.
    process = subprocess.Popen(
        command, stdin=null, stdout=null, stderr=null, start_new_session=True
    )
    try:
        code = process.wait(BUILD_SECONDS)
    except BaseException as error:  # Ctrl-C as well
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):  # a dead disk holds it
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(1)
        if isinstance(error, subprocess.TimeoutExpired):
            what = f"{command[0]} was ended, as it had not after {BUILD_SECONDS} s"
            raise subprocess.SubprocessError(what) from None
        raise
    if code:
        raise subprocess.SubprocessError(f"{command[0]} ended with exit code {code}")


def _keep(content: bytes, path: Path) -> ctypes.CDLL | None:
    """Load a library from where it is kept, under its name once it is loaded and on the disk.

    Its checksum stands behind it, in the same file: one rename puts both in place. A library has
    the lengths of its parts in itself, so that what follows them does not matter.

    Returns:
        None where it cannot be loaded from there; then it is not kept.

    Raises:
        OSError: it cannot be written, or something that is no file has its name.
    """
    descriptor, name = tempfile.mkstemp(prefix=".native-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content + hashlib.sha256(content).digest())
            file.flush()
            os.fsync(file.fileno())
        library = _load(Path(name))
        if library is not None:
            Path(name).replace(path)
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        return library
    finally:
        Path(name).unlink(missing_ok=True)


def _load(path: Path) -> ctypes.CDLL | None:
    """A library with its functions' types; None if it is another, or computes wrongly."""
    try:
        library = ctypes.CDLL(str(path))
        forward, backward = library.sgt_forward, library.sgt_backward
        add, write = library.sgt_add_classes, library.sgt_write_classes
        multiply = library.sgt_multiply
    except (OSError, AttributeError):
        return None
    pointer, problem = ctypes.c_void_p, ctypes.c_char_p
    forward.argtypes = (problem, pointer, pointer, pointer)
    forward.restype = ctypes.c_int64
    backward.argtypes = (
        *(problem, pointer, ctypes.c_int64, pointer),
        *(ctypes.c_double, pointer),
    )
    block = ctypes.POINTER(ClassBlock)
    add.argtypes = (block, ctypes.c_double, ctypes.POINTER(RowSums))
    write.argtypes = (block, ctypes.c_double, pointer, pointer, pointer, pointer)
    matrix = ctypes.POINTER(Matrix)
    multiply.argtypes = (matrix, matrix, ctypes.c_int32, matrix, ctypes.c_int32)
    for function in (backward, add, write, multiply):
        function.restype = None
    return library if _is_right(library) else None


def _is_right(library: ctypes.CDLL) -> bool:
    """Whether it computes one loss and gradient, in either way, as torch does: compilers err."""
    # Named, since torch's defaults may be others.
    z = torch.arange(3 * 37, dtype=torch.float32, device="cpu").sin().mul(8).reshape(3, 37)
    target, alpha = torch.tensor([36, 0, 20], device="cpu"), 0.25
    tensors = (z.data_ptr(), target.data_ptr(), 0, 0)
    problem = PROBLEM.pack(*tensors, 3, 37, 1, 37, 1, -100, 0.0, 0, 1, 1)
    losses, loss, divisor = z.new_empty(3), z.new_empty(()), z.new_empty(())
    scale, grad = z.new_ones(()), torch.empty_like(z)
    arguments = (losses.data_ptr(), loss.data_ptr(), divisor.data_ptr())
    wrong = library.sgt_forward(problem, *arguments)
    library.sgt_backward(problem, scale.data_ptr(), 0, divisor.data_ptr(), alpha, grad.data_ptr())
    expected = (torch.softmax(alpha * z, 1) - F.one_hot(target, 37)) / 3
    largest, at_label = torch.full_like(losses, -100), torch.full_like(losses, 1 / 3)
    exp = torch.zeros(2, 3, dtype=torch.float64, device="cpu")
    block = ClassBlock(z.data_ptr(), target.data_ptr(), 3, 0, 37, -100, 1)
    pointers = (largest.data_ptr(), exp.data_ptr(), exp[1].data_ptr(), losses.data_ptr())
    library.sgt_add_classes(block, alpha, RowSums(*pointers))
    by_blocks, factor = torch.empty_like(z), (1 / 3 / exp[1]).float()
    rows = (tensor.data_ptr() for tensor in (largest, factor, at_label, by_blocks))
    library.sgt_write_classes(block, alpha, *rows)
    product = torch.empty(37, 37, dtype=torch.float32, device="cpu")
    matrices = [Matrix(t.data_ptr(), *t.shape, *t.stride()) for t in (z.t(), z, product)]
    library.sgt_multiply(*matrices[:2], 0, matrices[2], 1)
    double = z.double()  # in which autocast leaves a product
    return (
        wrong == -1
        and torch.allclose(loss, F.cross_entropy(z, target), rtol=1e-5, atol=0)
        and torch.allclose((exp[0].log() + largest - losses).mean().float(), loss, rtol=1e-5)
        and all(torch.allclose(x, expected, rtol=1e-4, atol=1e-7) for x in (grad, by_blocks))
        and torch.allclose(product.double(), double.t() @ double, rtol=1e-5, atol=1e-4)
    )


def _is_ours_alone(found: os.stat_result) -> bool:
    """Whether only this user can have written it: what is loaded is executed."""
    return found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=2)
