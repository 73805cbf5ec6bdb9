"""`sgt train` and `train.py`: one configuration in, one run folder out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from softmax_gradient_tampering.recipes.catalogue import batch_warning, recipe_of, recipe_path
from softmax_gradient_tampering.training.config.arguments import given_flags, parse_arguments
from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.processes.launch import (
    environment_number,
    is_first_process,
)
from softmax_gradient_tampering.training.processes.slurm import join_step


def main(argv: Sequence[str], program: str = "sgt train") -> int:
    """Train, validate or plan, as the flags say; returns the exit code."""
    join_step()
    config = parse_arguments(argv, program, recipe_path)
    if is_first_process() and not config.validate:
        _warn_of_batch(given_flags(argv, program), config)

    from softmax_gradient_tampering.training.run import run

    return run(config).exit_code


def _warn_of_batch(given: Mapping[str, Any], config: Config) -> None:
    """Say where a recipe, by its name or as a file, is not trained at its published batch."""
    name = given.get("recipe")
    if name is None and "config" in given:
        name = recipe_of(Path(given["config"]))
    if name is None:
        return
    processes = environment_number("WORLD_SIZE", 1, smallest=1)
    samples = config.batch_size * config.grad_accum_steps * processes
    warning = batch_warning(name, samples, processes, config.lr)
    if warning:
        print(warning)
