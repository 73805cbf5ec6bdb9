"""What the environment says of a launch; read without torch."""

import os

from softmax_gradient_tampering.errors import UserError


def environment_number(
    name: str, default: int, smallest: int = 0, launcher: str = "torchrun"
) -> int:
    """A whole number that a launcher sets.

    Args:
        name: of the variable.
        default: where it is not set.
        smallest: number that it may hold.
        launcher: that sets it, for the message.

    Raises:
        UserError: the variable holds something else.
    """
    text = os.environ.get(name, str(default))
    is_number = text.isascii() and text.isdecimal() and len(text) < 10
    if not is_number or int(text) < smallest:
        raise UserError(
            f"{name}={text!r:.60} in the environment: must be a whole number from {smallest}, as "
            f"{launcher} sets it; unset it for a run of one process, or start the processes by "
            "torchrun or by srun",
            is_local=True,  # this very variable may say which process this is
        )
    return int(text)


def launch_id() -> str | None:
    """What torchrun calls this launch, the same after its restarts; None without one."""
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    return None if name == "none" else name  # torchrun's name for a launch without one


def is_restart() -> bool:
    """Whether torchrun started these processes in the place of ones that failed."""
    return environment_number("TORCHELASTIC_RESTART_COUNT", 0) > 0


def is_first_process() -> bool:
    """Whether this process prints, also before the processes have met."""
    return os.environ.get("RANK", "0") == "0"


def is_alone() -> bool:
    """Whether the run has one process."""
    return os.environ.get("WORLD_SIZE", "1") == "1"
