"""A run whose processes srun starts, told apart from a process that is alone in its allocation.

Slurm describes the allocation to every process in it, and the step to those that srun started:
the step alone says how many processes belong together. Read without torch.
"""

import os
import re
from functools import partial
from zlib import crc32

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.training.processes.launch import environment_number

_NUM_TASKS = "SLURM_STEP_NUM_TASKS"
_step_number = partial(environment_number, launcher="srun")
# Beside the ports that systems give out by themselves.
_FIRST_PORT, _NUM_PORTS = 12_000, 20_000
# What other launchers tell their processes: how many there are.
_OTHER_LAUNCHERS = {
    "OMPI_COMM_WORLD_SIZE": "Open MPI",
    "PMI_SIZE": "MPICH",
    "MV2_COMM_WORLD_SIZE": "MVAPICH",
    "JSM_NAMESPACE_SIZE": "jsrun",
    "FLUX_JOB_SIZE": "Flux",
}


def join_step() -> None:
    """Give the processes of a step of several tasks the environment that torchrun would give.

    Nothing changes where torchrun has set it, or where the step has one task.

    Raises:
        UserError: the step's variables do not fit together, or another launcher started several
            processes, each of which would train a whole run.
    """
    if "RANK" in os.environ:
        return
    number = _step_number(_NUM_TASKS, 1, smallest=1)
    if number == 1:
        _refuse_other_launchers()
        return
    world_size = environment_number("WORLD_SIZE", number, smallest=1)
    if world_size != number:
        raise UserError(
            f"WORLD_SIZE={world_size} in the environment, and srun started {number} tasks; "
            "unset WORLD_SIZE, or start one torchrun a node by srun",
            is_local=True,
        )
    for name in ("SLURM_PROCID", "SLURM_LOCALID"):
        if name not in os.environ:
            raise UserError(
                f"{_NUM_TASKS}={number} in the environment needs {name}, which is not set; start "
                "the run by srun or by torchrun",
                is_local=True,
            )
    rank = _step_number("SLURM_PROCID", 0)
    if rank >= number:
        raise UserError(
            f"SLURM_PROCID={rank} in the environment: must be less than {_NUM_TASKS}={number}; "
            "start the run by srun or by torchrun",
            is_local=True,
        )
    own = {
        "WORLD_SIZE": str(number),
        "RANK": str(rank),
        "LOCAL_RANK": str(_local_rank()),
    }
    os.environ.update(own)
    os.environ.setdefault("MASTER_ADDR", _first_host())
    os.environ.setdefault("MASTER_PORT", str(_port()))


def _local_rank() -> int:
    """The process's number on its node; 0 where Slurm shows each task a single GPU of its own."""
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    is_bound = len(devices) == 1 and devices != [""] and "SLURM_GPUS_ON_NODE" in os.environ
    on_node = _step_number("SLURM_GPUS_ON_NODE", 1)
    return 0 if is_bound and on_node != 1 else _step_number("SLURM_LOCALID", 0)


def _first_host() -> str:
    """The host of task 0: the first of a list such as node[03-07,9],other."""
    if os.environ.get("SLURM_STEP_NUM_NODES") == "1":
        return "127.0.0.1"
    hosts = os.environ.get("SLURM_STEP_NODELIST", "")
    host = re.sub(r"\[(\w+)[^]]*\]", r"\1", hosts).split(",")[0]
    if not host:
        raise UserError(
            "SLURM_STEP_NODELIST is not set: where the first process is cannot be known; set "
            "MASTER_ADDR",
            is_local=True,
        )
    return host


def _port() -> int:
    """A port that two steps of one machine do not share."""
    step = ".".join(os.environ.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    return _FIRST_PORT + crc32(step.encode()) % _NUM_PORTS


def _refuse_other_launchers() -> None:
    for name, launcher in _OTHER_LAUNCHERS.items():
        number = environment_number(name, 1, smallest=1, launcher=launcher)
        if number > 1 and "WORLD_SIZE" not in os.environ:
            raise UserError(
                f"{launcher} started {number} processes ({name}), each of which would train a "
                "whole run; start them by torchrun or by srun",
                is_local=True,
            )
