"""The step on a device: nothing on the host meets it, and the host waits for no value of it.

The device is torch's meta device, which every machine has and whose tensors cannot be read. A mode
sees every operation of the step, from the batch's way to the device to the sums of the epoch. What
autocast does on a GPU is done for the functions that hold the weights.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.utils import ModelEmaV3
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from softmax_gradient_tampering.data.factory import MemoryDataset
from softmax_gradient_tampering.data.memory.loaders import Images
from softmax_gradient_tampering.models import create_model
from softmax_gradient_tampering.training.config.arguments import parse_arguments
from softmax_gradient_tampering.training.processes.distributed import Processes
from softmax_gradient_tampering.training.setup.setup import Setup, set_up
from softmax_gradient_tampering.training.step.position import Position
from softmax_gradient_tampering.training.step.precision import Precision
from softmax_gradient_tampering.training.step.tally import Tally

DEVICE = torch.device("meta")
BATCHES = 4
FP16, SKIP = ("--amp-dtype", "float16"), ("--on-nonfinite", "skip")
# words: how often an optimizer step waits
CASES = {
    "float32": ((), 0),
    "bfloat16": (("--amp-dtype", "bfloat16"), 0),
    "float16": (FP16, 1),
    "clipping": (("--clip-grad", "1"), 0),
    "clipping, float16": ((*FP16, "--clip-grad", "1"), 1),
    "adaptive clipping": (("--clip-grad", "0.1", "--clip-mode", "agc"), 0),
    "mixup": (("--mixup", "0.5", "--cutmix", "1", "--smoothing", "0.1"), 0),
    "erasing": (("--reprob", "1", "--remode", "pixel", "--drop", "0.1"), 0),
    "average": (("--model-ema",), 0),
    "accumulation": (("--grad-accum-steps", "2"), 0),
    "accumulation, float16": (("--grad-accum-steps", "2", *FP16), 1),
    "alpha schedule": (("--alpha-schedule", "cosine", "--alpha-end", "0.5"), 0),
    "ordinary": (("--modify-softmax", "0", "--smoothing", "0.1"), 0),
    "adamw": (("--opt", "adamw", "--lr", "0.001"), 0),
    "lamb": (("--opt", "lamb", "--lr", "0.001"), 0),
    "skip": (SKIP, 1),
    "skip, accumulation": ((*SKIP, "--grad-accum-steps", "2"), 1),
    "skip, float16": ((*SKIP, *FP16), 2),
}


class Watch(TorchDispatchMode):
    """Notes what waits for the device, and what mixes its tensors with those of the host.

    A number of no dimension may be on the host: a kernel gets it as an argument.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.mixes: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        is_here = {each.device == DEVICE for each in tensors if each.dim() or each.device == DEVICE}
        if len(is_here) > 1:
            self.mixes.append(str(func))
        if func is torch.ops.aten._local_scalar_dense.default and True in is_here:
            self.waits.append(str(func))
            return tensors[0].dtype is torch.bool  # all is finite, and no overflow was found
        if func is torch.ops.aten._to_copy.default and not kwargs.get("non_blocking"):
            device = kwargs.get("device")
            if device is not None and (device == DEVICE) != (tensors[0].device == DEVICE):
                self.waits.append(str(func))
        return func(*args, **kwargs)


class Autocast(TorchFunctionMode):
    """Convolutions and products in a half type, as autocast has them; it knows no meta device."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (F.conv2d, F.linear):
            args = [each.to(self._dtype) if isinstance(each, Tensor) else each for each in args]
        return func(*args, **(kwargs or {}))


@pytest.fixture
def set_up_on_device(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Setup]:
    """Sets a run up whose device is the meta device."""
    get_module, forward = torch.get_device_module, Precision.forward

    def get_device_module(device: Any) -> Any:  # for its manual_seed
        return torch if device == DEVICE else get_module(device)

    def autocast(precision: Precision) -> AbstractContextManager[object]:
        return forward(precision) if precision.dtype is None else Autocast(precision.dtype)

    monkeypatch.setattr(torch, "get_device_module", get_device_module)
    monkeypatch.setattr(Precision, "forward", autocast)

    def make(*words: str) -> Setup:
        images = torch.zeros(8 * BATCHES, 3, 32, 32, dtype=torch.uint8)
        data = Images(images, torch.arange(len(images)) % 10, tuple("0123456789"))
        dataset = MemoryDataset("random", (data, data), ((0.5,) * 3, (0.25,) * 3), pad=4)
        shared = ("--model", "resnet8_narrow", "-b", "8", "--modify-softmax", "0.25")
        config = parse_arguments([*shared, *words])
        # timm's average has a generator, which the meta device has not: it is made on the CPU.
        setup = set_up(replace(config, model_ema=False), Processes(1, 0, DEVICE), dataset)
        if config.model_ema:
            average = ModelEmaV3(create_model("resnet8_narrow"), decay=0.9)
            setup.trainer.average = average.to(DEVICE)
        return setup

    return make


@pytest.mark.parametrize(("words", "waits_a_step"), CASES.values(), ids=CASES.keys())
def test_a_step_waits_for_its_loss_scale_and_for_a_skip_alone(
    words: tuple[str, ...], waits_a_step: int, set_up_on_device: Callable[..., Setup]
) -> None:
    setup = set_up_on_device(*words)
    trainer, loader, position = setup.trainer, setup.data.train_loader, Position()
    tally = Tally(DEVICE)
    with Watch() as watch:
        setup.schedule.start_epoch(0)
        setup.alpha_schedule.start_epoch(0)
        for batch in loader.epoch(0):
            outcome = trainer.train_batch(batch, position, loader.batch_sizes)
            tally.add(outcome)
            position.count_batch(outcome.is_update, outcome.is_skipped)
    assert position.batch == BATCHES
    assert position.step == BATCHES // trainer.accumulation
    for tensor in (outcome.loss, outcome.is_finite, tally.loss, tally.correct):
        assert tensor.device == DEVICE
    assert watch.mixes == []
    assert len(watch.waits) == waits_a_step * position.step, watch.waits


def test_what_is_watched_for_is_seen() -> None:
    here, there = torch.ones(3), torch.ones(3, device=DEVICE)
    number = torch.ones(())
    with Watch() as watch:
        there * number
        here.to(DEVICE, non_blocking=True)
        assert (watch.waits, watch.mixes) == ([], [])
        here.to(DEVICE)
        bool(there[0])
        assert len(watch.waits) == 2
        with pytest.raises(RuntimeError, match="meta"):
            there + here
        assert len(watch.mixes) == 1
