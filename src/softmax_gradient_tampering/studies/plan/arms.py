"""The arms that a study compares: of alphas, of schedules, of flags, and the equivalent ones."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.studies.plan.plan import TUNED, Arm
from softmax_gradient_tampering.studies.plan.settings import arm_flag
from softmax_gradient_tampering.training.config.arguments import flag_value

SCHEDULES = ("linear", "cosine")
BASELINE = "alpha-1"
_MAX_NAME = 60
_NAME = re.compile(r"\w[\w.+-]*")
# How the study itself names arms.
_OWN_NAMES = re.compile(rf"{TUNED}|(alpha|equivalent|tuning|linear|cosine)-.*")
_SWITCHED_OFF = 0.0  # of --modify-softmax: the ordinary loss


def compared_arms(
    alphas: Sequence[float], named: Mapping[str, Mapping[str, str]], baseline: str
) -> list[Arm]:
    """The baseline, and the arms of alphas and of flags that are judged against it.

    Alphas are trained with the other flags of the baseline.

    Args:
        alphas: of an arm each.
        named: flags and their texts, by the arm's name.
        baseline: the name of one of these arms.

    Raises:
        UserError: one of them is no arm, or none has the baseline's name.
    """
    arms = [named_arm(name, texts) for name, texts in named.items()]
    flags = next((arm.other_flags for arm in arms if arm.name == baseline), {})
    arms = [*(_alpha_arm(alpha, flags) for alpha in alphas), *arms]
    names = [arm.name for arm in arms]
    if baseline not in names:
        known = ", ".join(names) or "none; add --arm"
        raise UserError(f"--baseline {baseline}: no such arm; there are {known}")
    return [replace(arm, kind="baseline") if arm.name == baseline else arm for arm in arms]


def named_arm(name: str, texts: Mapping[str, str]) -> Arm:
    """The arm of a name and its flags, which are tampered with where they say so.

    Raises:
        UserError: the name is none for an arm, or a flag or value is wrong.
    """
    where = f"--arm {name:.60}:"
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
        raise UserError(
            f"--arm {name!r:.70}: an arm's name has letters, digits, '.', '_', '+', '-', and at "
            f"most {_MAX_NAME} of them"
        )
    if _OWN_NAMES.fullmatch(name):
        raise UserError(f"{where} the study gives such a name to arms of its own; choose another")
    # Ordinary training is trained through the same loss as tampered training.
    overrides: dict[str, Any] = {"modify_softmax": 1.0}
    for flag, text in texts.items():
        field = arm_flag(flag, where)
        try:
            overrides[field] = flag_value(field, text)
        except UserError as error:
            raise UserError(f"{where} {error}") from error
    alpha = overrides["modify_softmax"]
    if alpha == _SWITCHED_OFF:
        alpha = 1.0
    elif not (math.isfinite(alpha) and alpha > 0):
        raise UserError(f"{where} --modify-softmax {alpha:g}: must be a finite number above 0")
    way = overrides.get("alpha_schedule", "constant")
    if way != "constant":
        return Arm(name, "scheduled", alpha, overrides.get("alpha_end"), way, overrides)
    return Arm(name, "ordinary" if alpha == 1 else "tampered", alpha, overrides=overrides)


def equivalent_arms(arms: Sequence[Arm]) -> list[Arm]:
    """The ordinary training that must coincide with each tampered arm, with its other flags.

    Raises:
        UserError: no arm is tampered with at one alpha.
    """
    tampered = [arm for arm in arms if arm.kind == "tampered"]
    if not tampered:
        raise UserError(
            "--controls equivalent: no alpha but 1 to be equivalent to; add --alphas, or an --arm "
            "with modify-softmax"
        )
    return [
        Arm(
            f"equivalent-{arm.name.removeprefix('alpha-')}",
            "equivalent",
            arm.alpha,
            overrides={**arm.other_flags, "modify_softmax": 1.0, "equivalent_to": arm.alpha},
            follows=arm.name,
        )
        for arm in tampered
    ]


def check_alpha(what: str, alpha: float) -> None:
    """Refuse what is no alpha; `what` begins the message.

    Raises:
        UserError: it is not above 0, or not finite.
    """
    if not (math.isfinite(alpha) and alpha > 0):
        raise UserError(f"{what}: must be a finite number above 0; 1 is ordinary training")


def short(value: Any) -> str:
    """A number as short as it can be said without loss; other values as they are."""
    if not isinstance(value, float):
        return str(value)
    text = f"{value:g}"
    return text if float(text) == value else repr(value)


def _alpha_arm(alpha: float, flags: Mapping[str, Any]) -> Arm:
    check_alpha(f"--alphas {alpha:g}", alpha)
    kind = "ordinary" if alpha == 1 else "tampered"
    overrides = {**flags, "modify_softmax": float(alpha)}
    return Arm(f"alpha-{short(float(alpha))}", kind, float(alpha), overrides=overrides)


def scheduled_arm(text: str, flags: Mapping[str, Any]) -> Arm:
    """The arm of a schedule of alpha, such as linear:1:0.25, with other flags.

    Raises:
        UserError: it is no schedule.
    """
    way, *ends = text.split(":")
    try:
        start, end = map(float, ends)
    except ValueError:
        way = ""
    if way not in SCHEDULES:
        raise UserError(
            f"--alpha-schedules {text}: expected WAY:START:END, such as linear:1:0.25 or "
            "cosine:1:0.25"
        )
    for alpha in (start, end):
        check_alpha(f"--alpha-schedules {text}", alpha)
    overrides = {**flags, "modify_softmax": start, "alpha_schedule": way, "alpha_end": end}
    name = f"{way}-{short(start)}-to-{short(end)}"
    return Arm(name, "scheduled", start, end, way, overrides)
