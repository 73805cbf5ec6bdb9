"""A Slurm of one node on this machine, in a folder of its own, on ports of the loopback."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scontrol", "sinfo", "squeue")
CPUS = 4
_PATIENCE_S = 600.0
_CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=30
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0
KillWait=30
JobRequeue=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES State=UP
"""


def why_not() -> str | None:
    """What stands in the way of a Slurm here."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"needs Debian's slurm-wlm and munge: no {', '.join(missing)}"
    return None if os.geteuid() == 0 else "slurmd needs to be root"


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Start the three daemons; gives the environment for srun and sbatch, and ends them.

    Args:
        folder: with a short path, as a socket's has to be short.
    """
    host = socket.gethostname()
    for name in ("state", "spool"):
        (folder / name).mkdir()
    folder.chmod(0o755)
    key, configuration = folder / "munge.key", folder / "slurm.conf"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    controller, node = _free_port(), _free_port()
    configuration.write_text(
        _CONFIGURATION.format(host=host, controller=controller, node=node, folder=folder, cpus=CPUS)
    )
    environment = os.environ | {"SLURM_CONF": str(configuration)}
    munge = [
        *("munged", "--foreground", f"--key-file={key}", f"--socket={folder}/munge.socket"),
        *(f"--pid-file={folder}/munged.pid", f"--seed-file={folder}/munged.seed"),
        *(f"--log-file={folder}/munged.log", "--force"),
    ]
    with ExitStack() as ending:
        for command in (munge, ["slurmctld", "-D"], ["slurmd", "-D"]):
            ending.enter_context(_daemon(command, environment))
        wait_until(lambda: "idle" in _said(["sinfo", "-h", "-o", "%T"], environment))
        yield environment


def wait_until(condition: "object") -> None:
    """Wait for a condition, a callable without arguments."""
    assert callable(condition)
    until = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.2)


def _said(command: Sequence[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return done.stdout


@contextmanager
def _daemon(command: Sequence[str], environment: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
