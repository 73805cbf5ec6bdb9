"""A command for every missing run of a study, for a cluster's array jobs."""

import shlex
from collections.abc import Sequence
from typing import NamedTuple

from softmax_gradient_tampering.errors import as_printable
from softmax_gradient_tampering.studies.launch.selection import select_settings
from softmax_gradient_tampering.studies.launch.torchrun import prepare, train_command
from softmax_gradient_tampering.studies.plan.plan import State
from softmax_gradient_tampering.studies.results.study_folder import StudyFolder

_TO_RUN = (State.MISSING, State.UNFINISHED, State.FAILED)


class RunCommand(NamedTuple):
    """A shell's command that trains a run.

    Attributes:
        line: the command.
        label: of the run: its arm and seed.
    """

    line: str
    label: str


def missing_commands(study: StudyFolder) -> list[RunCommand]:
    """A shell's command for every run that is neither finished nor being trained.

    The tuned settings are chosen where the tuning is over, and every command's args.yaml is
    written.

    Raises:
        UserError: a file cannot be written, or no settings can be chosen.
    """
    select_settings(study)
    commands = []
    for cell in study.plan.unique_cells():
        if study.read(cell).state in _TO_RUN:
            prepare(study.cell_path(cell), study.plan.cell_config(cell))
            command = train_command(study.cell_path(cell), study.plan.processes_per_run)
            commands.append(RunCommand(shlex.join(command), f"{cell.arm}, seed {cell.seed}"))
    return commands


def slurm_script(name: str, commands: Sequence[RunCommand]) -> list[str]:
    """The lines of an sbatch script whose array task k runs command k."""
    tasks = (
        f"# {as_printable(command.label)}\n{number}) exec {command.line} ;;"
        for number, command in enumerate(commands, 1)
    )
    return [
        "#!/bin/bash",
        f"#SBATCH --job-name={name}",
        f"#SBATCH --array=1-{len(commands)}",
        "# Add what your cluster asks for: --partition, --time, --gres=gpu:1, --cpus-per-task ...",
        'case "$SLURM_ARRAY_TASK_ID" in',
        *tasks,
        "esac",
    ]
