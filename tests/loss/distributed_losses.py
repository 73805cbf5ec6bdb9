"""The losses on two processes, which `test_distributed.py` starts.

Logits as DTensor, FSDP2, tensor parallel. Process 0 writes, as JSON to the file that it is given,
what differed from one process.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import (
    DTensor,
    Replicate,
    Shard,
    distribute_tensor,
)
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    loss_parallel,
    parallelize_module,
)

from softmax_gradient_tampering import (
    TamperedCrossEntropyLoss,
    tampered_binary_cross_entropy_with_logits,
    tampered_cross_entropy,
    tampered_linear_cross_entropy,
)

ALPHA, NUM_ROWS, NUM_CLASSES, NUM_FEATURES = 0.25, 6, 8, 4
# name: (placement of the logits, that of the target, whether under loss_parallel)
LAYOUTS = {
    "whole": (Replicate(), Replicate(), False),
    "by rows": (Shard(0), Shard(0), False),
    "by classes": (Shard(1), Replicate(), False),
    "by classes, loss_parallel": (Shard(1), Replicate(), True),
}
LOSSES: dict[str, Callable[..., Tensor]] = {
    "function": lambda z, t: tampered_cross_entropy(z, t, ALPHA),
    "alpha as a tensor": lambda z, t: tampered_cross_entropy(z, t, torch.tensor(ALPHA)),
    "none": lambda z, t: tampered_cross_entropy(z, t, ALPHA, reduction="none"),
    "module": TamperedCrossEntropyLoss(ALPHA),
    "binary": lambda z, t: tampered_binary_cross_entropy_with_logits(z, z.detach() * 0 + 1, ALPHA),
}


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def differs(actual: Tensor | None, expected: Tensor | None) -> str:
    assert actual is not None
    assert expected is not None
    if torch.allclose(whole(actual), expected, atol=1e-6):
        return ""
    return f"{whole(actual).flatten()[:4].tolist()} for {expected.flatten()[:4].tolist()}"


def has_binary(mesh: Any) -> bool:
    """Whether torch's own loss takes a DTensor, which torch 2.9's does not."""
    logits = distribute_tensor(torch.zeros(2, 2), mesh, [Replicate()])
    try:
        F.binary_cross_entropy_with_logits(logits, logits)
    except NotImplementedError:
        return False
    return True


def check_layouts(mesh: Any) -> Iterator[tuple[str, str]]:
    logits, target = torch.randn(NUM_ROWS, NUM_CLASSES), torch.randint(NUM_CLASSES, (NUM_ROWS,))
    for name, loss_fn in LOSSES.items():
        if name == "binary" and not has_binary(mesh):
            continue
        leaf = logits.clone().requires_grad_()
        expected = loss_fn(leaf, target)
        expected.sum().backward()
        for layout, (of_logits, of_target, is_parallel) in LAYOUTS.items():
            sharded = distribute_tensor(logits, mesh, [of_logits]).requires_grad_()
            with loss_parallel() if is_parallel else nullcontext():
                loss = loss_fn(sharded, distribute_tensor(target, mesh, [of_target]))
                loss.sum().backward()
            wrong = differs(loss.detach(), expected.detach()) or differs(sharded.grad, leaf.grad)
            yield f"{name}, {layout}", wrong


def check_linear(mesh: Any) -> Iterator[tuple[str, str]]:
    hidden, weight = torch.randn(NUM_ROWS, NUM_FEATURES), torch.randn(NUM_CLASSES, NUM_FEATURES)
    target = torch.randint(NUM_CLASSES, (NUM_ROWS,))
    leaves = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    tampered_linear_cross_entropy(leaves[0], leaves[1], target, ALPHA).backward()
    for layout, placements in {
        "whole": (Replicate(), Replicate(), Replicate()),
        "by rows": (Shard(0), Replicate(), Shard(0)),
        "by classes": (Replicate(), Shard(0), Replicate()),
    }.items():
        sharded = [
            distribute_tensor(tensor, mesh, [placement])
            for tensor, placement in zip((hidden, weight, target), placements, strict=True)
        ]
        heads = [tensor.requires_grad_() for tensor in sharded[:2]]
        tampered_linear_cross_entropy(heads[0], heads[1], sharded[2], ALPHA).backward()
        wrong = [differs(ours.grad, one.grad) for ours, one in zip(heads, leaves, strict=True)]
        yield f"linear, {layout}", "; ".join(filter(None, wrong))


def make_net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(5, NUM_FEATURES), nn.Tanh(), nn.Linear(NUM_FEATURES, NUM_CLASSES)
    )


def gradients(net: nn.Module) -> list[Tensor]:
    return [whole(p.grad) for p in net.parameters() if p.grad is not None]


def check_nets(mesh: Any) -> Iterator[tuple[str, str]]:
    inputs, target = torch.randn(NUM_ROWS, 5), torch.randint(NUM_CLASSES, (NUM_ROWS,))
    loss_fn, alone = TamperedCrossEntropyLoss(ALPHA), make_net()
    loss_fn(alone(inputs), target).backward()

    fsdp = make_net()
    fully_shard(fsdp, mesh=mesh)
    rows = slice(dist.get_rank(), None, 2)  # the mean over processes is that over all rows
    loss_fn(fsdp(inputs[rows]), target[rows]).backward()
    nets: dict[str, nn.Module] = {"FSDP2": fsdp}
    for is_parallel in (False, True):
        style = ColwiseParallel(output_layouts=Shard(-1), use_local_output=False)
        net = parallelize_module(make_net(), mesh, {"2": style})
        with loss_parallel() if is_parallel else nullcontext():
            logits = net(inputs)
            assert isinstance(logits, DTensor)
            loss_fn(logits, distribute_tensor(target, mesh, [Replicate()])).backward()
        nets["tensor parallel" + ", loss_parallel" * is_parallel] = net
    for name, net in nets.items():
        pairs = zip(gradients(net), gradients(alone), strict=True)
        yield name, "; ".join(filter(None, (differs(*pair) for pair in pairs)))


def main(result: Path) -> None:
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2,))
    torch.manual_seed(0)
    found = {name: wrong for check in (check_layouts, check_linear, check_nets)
             for name, wrong in check(mesh)}  # fmt: skip
    if dist.get_rank() == 0:
        result.write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
