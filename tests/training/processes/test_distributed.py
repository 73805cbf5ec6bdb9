"""What is said of an environment that is not torchrun's."""

import os
import socket
import subprocess
import sys

import pytest

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.training.processes.distributed import start_processes

TWO = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE='abc' in the environment: must be a whole number"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE='0' in the environment: must be a whole number from 1"),
        ({"RANK": "-1"}, "RANK='-1' in the environment: must be a whole number"),
        ({"LOCAL_RANK": ""}, "LOCAL_RANK='' in the environment: must be a whole number"),
        (TWO | {"MASTER_ADDR": ""}, "WORLD_SIZE=2 in the environment needs MASTER_ADDR"),
        (TWO | {"RANK": "2"}, "RANK=2 in the environment: must be less than WORLD_SIZE=2"),
        (TWO | {"MASTER_PORT": "x"}, "MASTER_PORT='x' in the environment: must be a whole number"),
        (TWO | {"MASTER_PORT": "0"}, "MASTER_PORT=0 .*: must be a port, from 1 to 65535"),
        (TWO | {"MASTER_PORT": "99999"}, "MASTER_PORT=99999 .*: must be a port, from 1 to 65535"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 in the environment needs RANK, which is not set"),
    ],
)
def test_a_wrong_environment_is_named(
    environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*TWO, "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        start_processes("cpu")


def test_a_port_that_is_taken_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        for name, value in (TWO | {"MASTER_PORT": str(taken.getsockname()[1])}).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(UserError, match=r"not met there .*; start all of them"):
            start_processes("cpu")


ALONE = """
from softmax_gradient_tampering.training.processes import distributed
distributed._PATIENCE_S = 0.1
distributed.start_processes("cpu")
"""


def test_waiting_for_a_process_that_does_not_come_is_said() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | TWO | {"MASTER_PORT": port}
    command = [sys.executable, "-c", ALONE]
    waiting = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert waiting.stderr is not None
        said = next(line for line in waiting.stderr if line.startswith("process"))
    finally:
        waiting.kill()
        waiting.wait()
    assert f"process 0 of 2 has waited 0.1 s for the others, at 127.0.0.1:{port}" in said
