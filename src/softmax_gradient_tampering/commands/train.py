"""`sgt train` and `train.py`: one configuration in, one run folder out."""

from collections.abc import Sequence
from pathlib import Path

from softmax_gradient_tampering.recipes.catalogue import batch_warning, recipe_path
from softmax_gradient_tampering.training.config.arguments import parse_arguments
from softmax_gradient_tampering.training.processes.launch import (
    environment_number,
    is_first_process,
)
from softmax_gradient_tampering.training.processes.slurm import join_step


def main(argv: Sequence[str], program: str = "sgt train") -> int:
    """Train, validate or plan, as the flags say; returns the exit code."""
    join_step()
    recipes: list[str] = []

    def find(name: str) -> Path:
        recipes.append(name)
        return recipe_path(name)

    config = parse_arguments(argv, program, find)
    for name in recipes if is_first_process() and not config.validate else ():
        processes = environment_number("WORLD_SIZE", 1, smallest=1)
        samples = config.batch_size * config.grad_accum_steps * processes
        warning = batch_warning(name, samples, processes, config.lr)
        if warning:
            print(warning)

    from softmax_gradient_tampering.training.run import run

    return run(config).exit_code
