"""`sgt train` and `train.py`: one configuration in, one run folder out."""

from collections.abc import Sequence

from softmax_gradient_tampering.recipes.catalogue import recipe_path
from softmax_gradient_tampering.training.config.arguments import parse_arguments
from softmax_gradient_tampering.training.processes.slurm import join_step


def main(argv: Sequence[str], program: str = "sgt train") -> int:
    """Train, validate or plan, as the flags say; returns the exit code."""
    join_step()
    config = parse_arguments(argv, program, recipe_path)

    from softmax_gradient_tampering.training.run import run

    return run(config).exit_code
