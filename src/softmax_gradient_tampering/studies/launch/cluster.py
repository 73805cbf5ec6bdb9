"""A command for every missing run of a study, for a cluster's array jobs."""

import shlex
from collections.abc import Sequence

from softmax_gradient_tampering.studies.launch.selection import select_settings
from softmax_gradient_tampering.studies.launch.torchrun import prepare, train_command
from softmax_gradient_tampering.studies.plan.plan import State
from softmax_gradient_tampering.studies.results.study_folder import StudyFolder

_TO_RUN = (State.MISSING, State.UNFINISHED, State.FAILED)


def missing_commands(study: StudyFolder) -> list[str]:
    """A shell's command for every run that is neither finished nor being trained.

    The tuned settings are chosen where the tuning is over, and every command's args.yaml is
    written.

    Raises:
        UserError: a file cannot be written, or no settings can be chosen.
    """
    select_settings(study)
    lines = []
    for cell in study.plan.unique_cells():
        if study.read(cell).state in _TO_RUN:
            prepare(study.cell_path(cell), study.plan.cell_config(cell))
            command = train_command(study.cell_path(cell), study.plan.processes_per_run)
            lines.append(shlex.join(command))
    return lines


def slurm_script(name: str, lines: Sequence[str]) -> list[str]:
    """The lines of an sbatch script whose array task k runs command k."""
    return [
        "#!/bin/bash",
        f"#SBATCH --job-name={name}",
        f"#SBATCH --array=1-{len(lines)}",
        "# Add what your cluster asks for: --partition, --time, --gres=gpu:1, --cpus-per-task ...",
        'case "$SLURM_ARRAY_TASK_ID" in',
        *(f"{number}) exec {line} ;;" for number, line in enumerate(lines, 1)),
        "esac",
    ]
