"""Which GPUs the runs of a study are trained on, one run on each or several."""

import os

from softmax_gradient_tampering.errors import UserError

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def device_slots(gpus: str, jobs_per_gpu: int, processes_per_run: int = 1) -> tuple[str, ...]:
    """The GPUs of every run that is trained at a time, as CUDA_VISIBLE_DEVICES names them.

    Args:
        gpus: all, or numbers with commas between them, of those that this process sees.
        jobs_per_gpu: runs at a time on each.
        processes_per_run: of each run; each of them has a GPU.

    Raises:
        UserError: there are no such GPUs, or not whole groups of them.

    >>> device_slots("3,1", 2, 1)  # doctest: +SKIP
    ('3', '1', '3', '1')
    """
    there = count_gpus()
    if gpus == "all":
        numbers = list(range(there))
    else:
        try:
            numbers = [int(text) for text in gpus.split(",")]
        except ValueError as error:
            raise UserError(f"--gpus {gpus:.40}: expected all, or numbers such as 0,1,3") from error
    if not numbers or len(set(numbers)) < len(numbers):
        what = "a GPU stands there twice" if numbers else "torch sees no GPU; leave --gpus out"
        raise UserError(f"--gpus {gpus:.40}: {what}")
    if min(numbers) < 0 or max(numbers) >= there:
        seen = f"torch sees {there}, numbered from 0" if there else "torch sees no GPU"
        raise UserError(f"--gpus {gpus:.40}: {seen}")
    if len(numbers) % processes_per_run:
        raise UserError(
            f"--gpus {gpus:.40}: {len(numbers)} GPUs are not whole groups of the "
            f"{processes_per_run} of --processes-per-run"
        )
    groups = zip(*[iter(map(str, numbers))] * processes_per_run, strict=True)
    return tuple(map(",".join, groups)) * jobs_per_gpu


def check_processes(processes_per_run: int, device: str | None) -> None:
    """Refuse more processes of a run than there are GPUs for.

    Args:
        processes_per_run: of each run; each of them has a GPU.
        device: that the runs ask for; None for the GPUs where there are some.

    Raises:
        UserError: there are GPUs, and too few.
    """
    if processes_per_run == 1 or device not in (None, "cuda"):
        return
    there = count_gpus()
    if 0 < there < processes_per_run:
        raise UserError(
            f"--processes-per-run {processes_per_run}: torch sees {there} GPU{'s' * (there > 1)}, "
            "and every process needs one; give fewer processes"
        )


def count_gpus() -> int:
    """How many GPUs torch sees."""
    import torch

    return torch.cuda.device_count()


def visible_devices(slot: str) -> str:
    """CUDA_VISIBLE_DEVICES of a run's processes: of those that this process sees, a slot's."""
    seen = os.environ.get(_VISIBLE)
    if not seen:
        return slot
    names = seen.split(",")
    return ",".join(names[int(number)] for number in slot.split(","))


def use_devices(slot: str) -> None:
    """Let this process see the GPUs of a slot alone; before CUDA is first used."""
    os.environ[_VISIBLE] = visible_devices(slot)


def environment_with(slot: str) -> dict[str, str]:
    """The environment of a child that sees the GPUs of a slot alone."""
    return {**os.environ, _VISIBLE: visible_devices(slot)}
