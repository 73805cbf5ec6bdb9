"""Writes the tables of docs/clusters.md: memory of every row, and the seeds that a gain needs.

usage: python tools/write_cluster_tables.py
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from scipy import special
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from softmax_gradient_tampering.models import create_model, find_model
from softmax_gradient_tampering.studies.analysis.statistics import (
    CONFIDENCE,
    MIN_EQUAL_PAIRS,
    t_quantile,
)

PAGE = Path(__file__).parents[1] / "docs" / "clusters.md"
# The models of the rows, and the images of a process that they are published with; 128 is that of
# eight processes.
BATCHES = {
    "resnet18": (256, 128),
    "resnet18_wobn": (256, 128, 64),
    "resnet50": (256, 128),
    "resnet101": (256, 128),
    "seresnet18": (256, 128),
    "seresnet50": (256, 128),
}
IMAGE = (3, 224, 224)
NUM_CLASSES = 1000
GAINS = (0.1, 0.2, 0.3, 0.5, 1.0)
SPREADS = (0.1, 0.2, 0.4)
POWER = 0.8
_GIB = 2**30


class Memory(NamedTuple):
    """What a process of a run holds, counted from shapes.

    Attributes:
        num_parameters: of the model.
        state: bytes of weights and buffers, gradients and momentum, in float32; several processes
            share the gradients where they are.
        images: bytes of two batches in float32: the one that is trained on, and the next.
        activations: bytes of what the forward pass keeps for the backward pass, in bfloat16.
    """

    num_parameters: int
    state: int
    images: int
    activations: int

    @property
    def total(self) -> int:
        return self.state + self.images + self.activations


def count_memory(name: str, batch_size: int) -> Memory:
    """The memory of a model of the rows in training, without a tensor being made."""
    with FakeTensorMode():
        model = create_model(find_model(name), zero_init_last=True, num_classes=NUM_CLASSES)
        images = torch.empty(batch_size, *IMAGE)
        parameters = sum(p.numel() for p in model.parameters())
        buffers = sum(b.numel() * b.element_size() for b in model.buffers())
        kept = kept_bytes(model, images)
    size = images.numel() * images.element_size()
    return Memory(parameters, 3 * 4 * parameters + buffers, 2 * size, kept)


def kept_bytes(model: nn.Module, images: torch.Tensor) -> int:
    """Bytes that the forward pass in bfloat16 keeps for the backward pass, each storage once.

    The model's own parameters and buffers are left out; their copies in bfloat16 are not.
    """
    own = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # held, so that no other one gets its address
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16):
        model(images)
    return sum(storage.nbytes() for storage in kept.values())


def seeds_needed(gain: float, sd: float) -> int:
    """The fewest pairs whose t test is below 0.05 with a chance of four in five.

    Args:
        gain: true mean of the paired differences.
        sd: their true standard deviation.

    Returns:
        At least 6, below which the sign-flip test bears nothing out.
    """
    number = MIN_EQUAL_PAIRS
    while _power(gain / sd, number) < POWER:
        number += 1
    return number


def _power(effect: float, number: int) -> float:
    critical = t_quantile(CONFIDENCE, number - 1)
    return 1 - float(special.nctdtr(number - 1, effect * number**0.5, critical))


def memory_rows(name: str) -> list[str]:
    """A model's rows of the table of memory."""
    rows = []
    for batch_size in BATCHES[name]:
        memory = count_memory(name, batch_size)
        sizes = (memory.state, memory.images, memory.activations, memory.total)
        cells = (name, batch_size, f"{memory.num_parameters / 1e6:.1f}", *map(_gib, sizes))
        rows.append(_row(cells))
    return rows


def seed_rows() -> list[str]:
    """The rows of the table of seeds."""
    return [_row((f"{gain:g}", *(seeds_needed(gain, sd) for sd in SPREADS))) for gain in GAINS]


def with_tables(page: str) -> str:
    """The page with its two tables made anew."""
    memory = [row for name in BATCHES for row in memory_rows(name)]
    for start, rows in (("model", memory), ("gain", seed_rows())):
        rest = re.compile(rf"^(\| {start} .*\n\|[-:|]+\n)(?:\|.*\n)+", re.MULTILINE)
        page = rest.sub(lambda found, rows=rows: found[1] + "".join(f"{r}\n" for r in rows), page)
    return page


def _gib(number: int) -> str:
    return f"{number / _GIB:.2f}"


def _row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
