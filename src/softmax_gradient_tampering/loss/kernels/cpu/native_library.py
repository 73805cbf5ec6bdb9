"""The compiled rows of `source/native.cpp`: built at first use, kept for later, or not there.

It needs Linux, g++ and a processor with AVX2 or AVX-512; the build takes about a second. It is
kept in `~/.cache/softmax_gradient_tampering` under a name that its source and flags decide, and
loaded from there only if nobody else can write to it. Where it cannot be built, or computes
wrongly, there is none, and torch's operations do the work.
"""

import ctypes
import functools
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
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
BUILD_SECONDS = 120


class Problem(ctypes.Structure):
    """As Problem of `source/native.cpp`: the arguments of both passes."""

    _fields_ = (
        ("z", ctypes.c_void_p),
        ("labels", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("weight", ctypes.c_void_p),
        ("num_images", ctypes.c_int64),
        ("num_classes", ctypes.c_int64),
        ("num_positions", ctypes.c_int64),
        ("image_stride", ctypes.c_int64),
        ("class_stride", ctypes.c_int64),
        ("ignore_index", ctypes.c_int64),
        ("label_smoothing", ctypes.c_double),
        ("dtype", ctypes.c_int32),
        ("divides", ctypes.c_int32),
        ("num_threads", ctypes.c_int32),
    )


@functools.cache
def native_library() -> ctypes.CDLL | None:
    """The functions `sgt_forward` and `sgt_backward`, or None where they cannot be had.

    The first call of a process loads them, and builds them where that was not done before.
    """
    flags = INSTRUCTION_FLAGS.get(torch.backends.cpu.get_cpu_capability())
    if sys.platform != "linux" or flags is None:
        return None
    try:
        library = _load_kept(flags) or _build_and_load(flags, None)
    except (OSError, RuntimeError, subprocess.SubprocessError):
        return None
    return library if library and _is_right(library) else None


def cache_folder() -> Path:
    """Where the built library is kept."""
    return Path.home() / ".cache" / "softmax_gradient_tampering"


def _load_kept(flags: tuple[str, ...]) -> ctypes.CDLL | None:
    """From the cache, built into it if need be; None where the cache cannot be used."""
    sources = (SOURCE, *sorted(SOURCE.parent.glob("*.h")))
    contents = b"".join(source.read_bytes() for source in sources)
    key = hashlib.sha256(contents + " ".join((*FLAGS, *flags)).encode())
    try:
        folder = cache_folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours_alone(folder):
            return None
        library = folder / f"native-{key.hexdigest()[:16]}.so"
        if not library.exists():
            return _build_and_load(flags, library)
        return _load(library) if _is_ours_alone(library) else None
    except (OSError, RuntimeError):  # no home, no room, or built where libraries are others
        return None


def _build_and_load(flags: tuple[str, ...], kept_at: Path | None) -> ctypes.CDLL | None:
    """Build, load, and keep if a path is given; what is kept appears whole or not at all."""
    compiler = shutil.which("g++")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory(dir=kept_at.parent if kept_at else None) as folder:
        built = Path(folder) / "native.so"
        subprocess.run(
            [compiler, *FLAGS, *flags, str(SOURCE), "-o", str(built)],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=BUILD_SECONDS,
            start_new_session=True,  # a signal to the program's group does not break it off
        )
        built.chmod(0o700)
        library = _load(built)
        if kept_at is not None:
            built.replace(kept_at)
        return library


def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    pointer, problem = ctypes.c_void_p, ctypes.POINTER(Problem)
    library.sgt_forward.argtypes = (problem, pointer, pointer, pointer)
    library.sgt_forward.restype = ctypes.c_int64
    library.sgt_backward.argtypes = (
        *(problem, pointer, ctypes.c_int64, pointer),
        *(ctypes.c_double, pointer),
    )
    library.sgt_backward.restype = None
    return library


def _is_right(library: ctypes.CDLL) -> bool:
    """Whether it computes one loss and gradient as torch does: compilers err too."""
    # Named, since torch's defaults may be others.
    z = torch.arange(3 * 37, dtype=torch.float32, device="cpu").sin().mul(8).reshape(3, 37)
    target, alpha = torch.tensor([36, 0, 20], device="cpu"), 0.25
    tensors = (z.data_ptr(), target.data_ptr(), None, None)
    problem = Problem(*tensors, 3, 37, 1, 37, 1, -100, 0.0, 0, 1, 1)
    losses, loss, divisor = z.new_empty(3), z.new_empty(()), z.new_empty(())
    scale, grad = z.new_ones(()), torch.empty_like(z)
    arguments = (losses.data_ptr(), loss.data_ptr(), divisor.data_ptr())
    wrong = library.sgt_forward(ctypes.byref(problem), *arguments)
    library.sgt_backward(
        ctypes.byref(problem), scale.data_ptr(), 0, divisor.data_ptr(), alpha, grad.data_ptr()
    )
    expected = (torch.softmax(alpha * z, 1) - F.one_hot(target, 37)) / 3
    return (
        wrong == -1
        and torch.allclose(loss, F.cross_entropy(z, target), rtol=1e-5, atol=0)
        and torch.allclose(grad, expected, rtol=1e-4, atol=1e-7)
    )


def _is_ours_alone(path: Path) -> bool:
    """Whether only this user can have written it: what is loaded is executed."""
    found = path.stat()
    return found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
