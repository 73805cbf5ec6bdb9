"""The program in child processes that start at once: a server that has imported it forks them.

A process of its own takes seconds for its imports. What is tested of the start itself, and of
torchrun, starts processes as a user does.
"""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["pytest", "sklearn.datasets", "softmax_gradient_tampering.training.run", __name__]
)
TIMEOUT_S = 300.0


def run_children(
    main: Callable[[Sequence[str]], None], words: Sequence[str], processes: int = 1
) -> "subprocess.CompletedProcess[str]":
    """Run a program, as one process or as several that know of each other.

    Args:
        main: the program: gets its words, and ends the process.
        words: the command line.
        processes: how many.

    Returns:
        What they printed, by process; of the exit codes the first that is not 0.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(processes):
        environment = {"OMP_NUM_THREADS": "1", "RANK": str(rank), "LOCAL_RANK": str(rank)}
        environment |= {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1"}
        environment["MASTER_PORT"] = str(port)
        outputs = [Path(f".child-{rank}-{name}").absolute() for name in ("stdout", "stderr")]
        child = SERVER.Process(
            target=_run, args=(main, list(words), environment, str(Path.cwd()), outputs)
        )
        child.start()
        children.append((child, outputs))
    until = time.monotonic() + TIMEOUT_S
    for child, _ in children:
        child.join(max(0.0, until - time.monotonic()))
        if child.is_alive():
            child.kill()
            child.join()
    codes = [child.exitcode for child, _ in children]
    code = next((code for code in codes if code), 0)
    texts = []
    for number in range(2):
        files = [outputs[number] for _, outputs in children]
        texts.append("".join(file.read_text() for file in files))
        for file in files:
            file.unlink()
    assert time.monotonic() < until, f"still running after {TIMEOUT_S} s: {texts}"
    return subprocess.CompletedProcess(list(words), code or 0, *texts)


def _run(
    main: Callable[[Sequence[str]], None],
    words: list[str],
    environment: dict[str, str],
    folder: str,
    outputs: list[Path],
) -> None:
    """A child: as if it had been started with these words, in this folder."""
    os.chdir(folder)
    os.environ.update(environment)
    for number, path in enumerate(outputs, start=1):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["train.py", *words]
    main(words)


def train_py(words: Sequence[str]) -> None:
    """train.py."""
    from softmax_gradient_tampering import program

    program.train_py()
