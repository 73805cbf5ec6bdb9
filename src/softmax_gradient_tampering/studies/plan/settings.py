"""The training flags of a study: those of all runs, and those that only the study sets."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.terminal.parser import nearest
from softmax_gradient_tampering.training.config.arguments import (
    FIELDS,
    given_flags,
    to_mapping,
)
from softmax_gradient_tampering.training.config.fields import NOT_RECORDED, Config
from softmax_gradient_tampering.training.config.help_page import SOURCES

# Flags that a study sets itself, and how it is told to.
_OF_THE_TAMPERING = {
    "modify_softmax": "--alphas sets it",
    "alpha_schedule": "--alpha-schedules sets it",
    "alpha_end": "--alpha-schedules sets it",
}
_OF_THE_STUDY = {
    "seed": "--seeds sets it",
    "equivalent_to": "--controls equivalent sets it",
    "holdout": "the study's own --holdout, before --, sets it",
    "output": "give the study's own --output, before --",
    "experiment": "a run's folder is named by the study",
    "resume": "a study resumes its runs by itself",
    "no_resume_opt": "a study resumes its runs by itself",
    "validate": "a study trains",
    "dry_run": "sgt study plan plans and trains nothing",
    "max_steps": "a run that stops early is never finished",
    "start_epoch": "a study's runs start at the beginning",
    "local_rank": "--processes-per-run starts the processes",
}
_SAME_DATA = "arms are compared on the same data; give it after --, for all runs"
_OF_THE_DATA = dict.fromkeys(
    ("data_dir", "dataset", "cifar", "train_split", "val_split", "on_bad_image"), _SAME_DATA
)
# What a report shows besides, on unless it is switched off after --.
_MEASURED = ("logit_stats", "filter_norms", "save_predictions")


def shared_settings(words: Sequence[str], config: Config) -> dict[str, Any]:
    """The settings of all runs, as plain values.

    Args:
        words: the training flags, as they were given.
        config: what they parse to.

    Raises:
        UserError: a flag among them is the study's to set.
    """
    reserved = _OF_THE_TAMPERING | _OF_THE_STUDY
    given = given_flags(words)
    for name in given:
        if name in reserved:
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"{flag} after --: not in a study; {reserved[name]}")
    default = Config()
    own = {name: getattr(default, name) for name in reserved}
    own |= {name: given.get(name, True) for name in _MEASURED}
    return to_mapping(replace(config, **own), leave_out=(*NOT_RECORDED, "seed"))


def grid_flag(flag: str) -> str:
    """The field of a flag of --grid.

    Raises:
        UserError: there is no such flag, or the study sets it.
    """
    return _field(flag, f"--grid {flag}", "not in a grid", _OF_THE_TAMPERING | _OF_THE_STUDY)


def arm_flag(flag: str, where: str) -> str:
    """The field of a flag of an arm; `where` begins the message of a mistake.

    Raises:
        UserError: there is no such flag, or it is the same in all arms.
    """
    return _field(flag, f"{where} {flag}", "not in an arm", _OF_THE_STUDY | _OF_THE_DATA)


def _field(flag: str, where: str, refusal: str, reserved: dict[str, str]) -> str:
    name = flag.replace("-", "_")
    if name in SOURCES:
        raise UserError(f"{where}: {refusal}; give it after --, for all runs")
    if name not in FIELDS:
        raise UserError(f"{where}: there is no such flag{nearest(name, FIELDS)}")
    if name in reserved:
        raise UserError(f"{where}: {refusal}; {reserved[name]}")
    return name
