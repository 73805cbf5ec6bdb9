"""Two hosts, each a network namespace of this machine, and a shared folder: one of them is lost."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.clusters.slurm import wait_until
from tests.training.runs import TRAIN_PY, assert_same_run, environment

INTERFACE = "sgt0"
ADDRESSES = ("10.213.7.1", "10.213.7.2")
WORDS = ("-b", 32, "--epochs", 30, "--output", "out", "--recovery-interval", 10)


def why_not() -> str | None:
    """What stands in the way of network namespaces here."""
    if shutil.which("ip") is None:
        return "needs Debian's iproute2"
    name = f"sgt-probe-{os.getpid()}"
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if done.returncode:
        return f"ip netns is not allowed: {done.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return None


pytestmark = [pytest.mark.slow, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """Two namespaces that see each other, and nothing else."""
    names = f"sgt-{os.getpid()}-0", f"sgt-{os.getpid()}-1"
    with ExitStack() as ending:
        for name in names:
            _ip("netns", "add", name)
            ending.callback(_ip, "netns", "del", name)
            ending.callback(kill_host, name)
        first = ("link", "add", INTERFACE, "netns", names[0])
        _ip(*first, "type", "veth", "peer", "name", INTERFACE, "netns", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", INTERFACE)
            _ip("-n", name, "link", "set", INTERFACE, "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield names


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def kill_host(name: str) -> None:
    """End all that runs on a host, as a power cut does."""
    done = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True)
    for number in done.stdout.split():
        os.kill(int(number), signal.SIGKILL)


def start(hosts: tuple[str, str], *words: object) -> "list[subprocess.Popen[str]]":
    """A process on each host, as a launcher that starts them by itself does."""
    started = []
    for rank, host in enumerate(hosts):
        variables = {"RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
        variables |= {"MASTER_ADDR": ADDRESSES[0], "MASTER_PORT": "29400"}
        # The hosts have one name, of which gloo would take an address that the other cannot reach.
        variables |= {"GROUP_WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": INTERFACE}
        command = ["ip", "netns", "exec", host, sys.executable, str(TRAIN_PY)]
        with Path(f"said-{rank}.txt").open("w") as said:
            started.append(
                subprocess.Popen(
                    [*command, *map(str, (*WORDS, *words))],
                    env=environment() | variables,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
    return started


def test_a_run_of_two_hosts_survives_the_loss_of_either(hosts: tuple[str, str]) -> None:
    whole = start(hosts, "--experiment", "whole")
    assert [process.wait(300) for process in whole] == [0, 0]
    for lost in (1, 0):
        before = {path.name for path in Path().glob("out/broken/recovery-*")}
        running = start(hosts, "--experiment", "broken", "--resume", "auto")
        wait_until(lambda: {path.name for path in Path().glob("out/broken/recovery-*")} - before)  # noqa: B023
        kill_host(hosts[lost])
        left = 1 - lost
        assert running[left].wait(300) == 1
        said = Path(f"said-{left}.txt").read_text()
        assert f"another process of this run, at {ADDRESSES[lost]}, has ended" in said
        assert "Traceback" not in said
        running[lost].wait(300)
    done = start(hosts, "--experiment", "broken", "--resume", "auto")
    assert [process.wait(300) for process in done] == [0, 0]
    assert_same_run(Path("out/broken"), Path("out/whole"))
