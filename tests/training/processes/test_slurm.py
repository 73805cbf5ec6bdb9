"""srun's steps, by the variables that Slurm sets."""

import os
import subprocess
import sys

import pytest

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.training.checkpoint.content import load_checkpoint
from softmax_gradient_tampering.training.processes.slurm import join_step

JOINED = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
STEP = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "node[03-04]",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}


@pytest.fixture
def environment(monkeypatch):
    for name in [*os.environ]:
        if name.startswith(("SLURM_", "OMPI_", "PMI_", "MV2_", "JSM_", "FLUX_")) or name in JOINED:
            monkeypatch.delenv(name)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name in JOINED:  # so that what is set is taken back
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)

    def joined(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        join_step()
        return {name: os.environ[name] for name in JOINED if name in os.environ}

    return joined


def test_the_tasks_of_a_step_are_the_processes_of_one_run(environment):
    found = environment(**STEP)
    port = int(found.pop("MASTER_PORT"))
    assert found == {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "MASTER_ADDR": "node03"}
    assert 12_000 <= port < 32_000


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("node[03-07,9],other", "node03"),
        ("a,b", "a"),
        ("rack[2-3]node[10-12]", "rack2node10"),
        ("gpu-7.cluster", "gpu-7.cluster"),
    ],
)
def test_the_first_process_is_on_the_first_host(environment, hosts, first):
    assert environment(**STEP | {"SLURM_STEP_NODELIST": hosts})["MASTER_ADDR"] == first


def test_on_one_node_the_first_process_is_here(environment):
    assert environment(**STEP | {"SLURM_STEP_NUM_NODES": "1"})["MASTER_ADDR"] == "127.0.0.1"


def test_an_address_and_a_port_that_are_given_are_taken(environment):
    found = environment(**STEP, MASTER_ADDR="head", MASTER_PORT="29400")
    assert (found["MASTER_ADDR"], found["MASTER_PORT"]) == ("head", "29400")


@pytest.mark.parametrize(
    "alone",
    [
        {},
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"},  # a batch script's own process
        STEP | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "4"},
    ],
)
def test_a_process_that_is_alone_in_an_allocation_of_several_tasks_stays_alone(environment, alone):
    assert environment(**alone) == {}


def test_torchrun_under_srun_decides(environment):
    torchruns = {"WORLD_SIZE": "8", "RANK": "5", "LOCAL_RANK": "1"}
    assert environment(**STEP, **torchruns) == torchruns


@pytest.mark.parametrize(("devices", "local_rank"), [("0", "0"), ("0,1", "1"), (None, "1")])
def test_a_task_that_is_shown_one_gpu_of_several_takes_that(environment, devices, local_rank):
    variables = STEP | {"SLURM_GPUS_ON_NODE": "2"}
    if devices is not None:
        variables["CUDA_VISIBLE_DEVICES"] = devices
    assert environment(**variables)["LOCAL_RANK"] == local_rank


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (STEP | {"WORLD_SIZE": "2"}, "WORLD_SIZE=2 .* srun started 4 tasks; unset WORLD_SIZE"),
        ({"SLURM_STEP_NUM_TASKS": "4"}, "needs SLURM_PROCID"),
        (STEP | {"SLURM_STEP_NODELIST": ""}, "set MASTER_ADDR"),
        (STEP | {"SLURM_STEP_NUM_TASKS": "x"}, "SLURM_STEP_NUM_TASKS='x' .* as srun sets it"),
        (STEP | {"SLURM_PROCID": "4"}, "SLURM_PROCID=4 .* less than SLURM_STEP_NUM_TASKS=4"),
        (STEP | {"SLURM_LOCALID": "-1"}, "SLURM_LOCALID='-1' .* as srun sets it"),
        ({"OMPI_COMM_WORLD_SIZE": "two"}, "OMPI_COMM_WORLD_SIZE='two' .* as Open MPI sets it"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "Open MPI started 4 processes .* by torchrun or by srun"),
        ({"PMI_SIZE": "2"}, "MPICH started 2 processes"),
        ({"MV2_COMM_WORLD_SIZE": "2"}, "MVAPICH started 2 processes"),
        ({"JSM_NAMESPACE_SIZE": "3"}, "jsrun started 3 processes"),
        ({"FLUX_JOB_SIZE": "2"}, "Flux started 2 processes"),
    ],
)
def test_what_would_train_several_whole_runs_is_refused(environment, variables, message):
    with pytest.raises(UserError, match=message):
        environment(**variables)


def test_two_tasks_train_one_run(tmp_path):
    words = ["train", "--max-steps", "2", "--output", str(tmp_path), "--experiment", "run"]
    # As srun starts them; the port is one that the steps of other tests do not have.
    step = STEP | {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_LOCALID": "0",
    }
    without = {name: value for name, value in os.environ.items() if name not in JOINED}
    tasks = [
        subprocess.Popen(
            [sys.executable, "-m", "softmax_gradient_tampering.program", *words],
            env=without | step | {"SLURM_PROCID": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in ("0", "1")
    ]
    said = [task.communicate(timeout=300)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    assert [line for line in said[1].splitlines() if "[Gloo]" not in line] == []  # torch 2.9's
    (folder,) = tmp_path.iterdir()
    (path,) = folder.glob("recovery-*.pth.tar")
    assert load_checkpoint(path)["softmax_gradient_tampering"]["num_processes"] == 2
