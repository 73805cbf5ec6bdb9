"""What the tests of the loss room share: shapes, dtypes, alphas, options and tolerances."""

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ALPHAS = (0.05, 0.25, 0.92, 1.0, 1.5)
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SHAPES = ((5,), (1, 3), (7, 5), (4, 5, 3), (2, 3, 2, 2))
REDUCTIONS = ("mean", "sum", "none")
SMOOTHINGS = (0.0, 0.1, 1.0)
IGNORED = 1  # an index within the classes: it must be ignored for its value alone

# Every tolerance of the room, as (rtol, atol). A law without an entry holds bitwise.
TOLERANCES = {
    # Required of float64: some thousand roundings of 1e-16 on numbers of order 1.
    "float64": (0.0, 1e-12),
    # The published hook recovers p by subtraction: it loses a digit or two of its 16.
    "golden": (0.0, 1e-14),
    # Two float64 trainings that round differently; the difference grows over the steps.
    "trajectory": (1e-11, 1e-12),
    # A sum of about 1e3 float32 numbers, against the same in float64.
    "float32": (1e-5, 1e-6),
    # alpha = 1e-6 in the place of the limit 0: an error of the order of alpha |z|.
    "limit": (0.0, 1e-4),
}


def assert_close(actual: Tensor, expected: Tensor, tolerance: str = "float64") -> None:
    rtol, atol = TOLERANCES[tolerance]
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol, equal_nan=True)


def assert_equal(actual: Tensor, expected: Tensor) -> None:
    """Bitwise, in dtype and shape as well; nan equals nan."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


@dataclass(frozen=True)
class Case:
    """Arguments of a cross-entropy, made when a test asks for them."""

    shape: tuple[int, ...] = (7, 5)
    soft: bool = False
    weighted: bool = False
    ignored: bool = False
    reduction: str = "mean"
    smoothing: float = 0.0

    def make(
        self, dtype: torch.dtype = torch.float64, seed: int = 0, scale: float = 3.0
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """(logits, target, options), the logits of standard deviation `scale`."""
        generator = torch.Generator().manual_seed(seed)
        shape, batch = self.shape, self.shape[:1] + self.shape[2:] if len(self.shape) > 1 else ()
        num_classes = shape[min(1, len(shape) - 1)]
        logits = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
        if self.soft:
            target = torch.randn(shape, generator=generator, dtype=torch.float64)
            target = target.softmax(dim=min(1, len(shape) - 1)).to(dtype)
        else:
            target = torch.randint(num_classes, batch, generator=generator)
        weight = torch.rand(num_classes, generator=generator, dtype=torch.float64) + 0.5
        options = {
            "weight": weight.to(dtype) if self.weighted else None,
            "ignore_index": IGNORED if self.ignored else -100,
            "reduction": self.reduction,
            "label_smoothing": self.smoothing,
        }
        return logits.to(dtype), target, options

    def __str__(self) -> str:
        words = [
            "x".join(map(str, self.shape)),
            "soft" if self.soft else "index",
            "weighted" * self.weighted,
            "ignored" * self.ignored,
            self.reduction,
            f"e{self.smoothing}" if self.smoothing else "",
        ]
        return "-".join(filter(None, words))


# Every combination of options; soft targets know no ignored index.
OPTION_CASES = tuple(
    Case(soft=soft, weighted=weighted, ignored=ignored, reduction=reduction, smoothing=smoothing)
    for soft, weighted, ignored, reduction, smoothing in product(
        (False, True), (False, True), (False, True), REDUCTIONS, SMOOTHINGS
    )
    if not (soft and ignored)
)
CASES = tuple(replace(case, shape=shape) for shape in SHAPES for case in OPTION_CASES)
# A few that take every path of the code once, where all of CASES would take too long.
FEW_CASES = (
    Case(),
    Case(reduction="none"),
    Case(weighted=True, ignored=True),
    Case(weighted=True, ignored=True, reduction="sum", smoothing=0.1),
    Case(soft=True),
    Case(soft=True, weighted=True, reduction="none", smoothing=0.1),
    Case(shape=(4, 5, 3), weighted=True, smoothing=0.1),
)


def value_and_gradient(loss_fn, logits: Tensor, *args, **options) -> tuple[Tensor, Tensor]:
    """The loss, and its gradient for an incoming gradient of 1, 1 + 1/7, 1 + 2/7, ..."""
    logits = logits.detach().clone().requires_grad_()
    loss = loss_fn(logits, *args, **options)
    incoming = 1 + torch.arange(loss.numel(), dtype=torch.float64, device=loss.device) / 7
    loss.backward(incoming.reshape(loss.shape).to(loss))
    assert logits.grad is not None
    return loss.detach(), logits.grad


def surrogate(logits: Tensor, target: Tensor, alpha: float, **options) -> Tensor:
    """The loss whose ordinary gradient is the tampered one, in torch's own operations."""
    return F.cross_entropy(alpha * logits, target, **options) / alpha
