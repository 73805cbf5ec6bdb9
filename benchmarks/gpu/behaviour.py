"""What must hold on a GPU beside right numbers: no wait for the device, capture, compiled calls."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpu.timing import Call, Sink, captured, is_past, synchronize
from softmax_gradient_tampering import (
    TamperedCrossEntropyLoss,
    tampered_cross_entropy,
    tampered_linear_cross_entropy,
)
from timer import Row

ALPHA = 0.25


def measure(device: torch.device, deadline: float) -> Iterator[Row]:
    sink = Sink("gpu-behaviour")
    leaves = [
        torch.randn(shape, device=device).requires_grad_()
        for shape in ((64, 1000), (64, 32), (1000, 32))
    ]
    for name, call in _calls(leaves).items():
        with sink.trying(name, "no wait for the device", "holds"):
            call()
            _call_without_waiting(call, device)
            sink.add(name, "no wait for the device", "holds", "text", p50="yes")
        with sink.trying(name, "capture and replay", "largest difference"):
            figure = f"{_difference_of_replay(call, leaves, device):.3g}"
            sink.add(name, "capture and replay", "largest difference", "1", p50=figure)
    yield from sink
    for mode in ("default", "reduce-overhead"):
        if is_past(deadline):
            return
        sink = Sink("gpu-behaviour")
        with sink.trying("compiled model and loss", mode, "largest difference"):
            figure = f"{_difference_of_compiled(mode, device):.3g}"
            sink.add("compiled model and loss", mode, "largest difference", "1", p50=figure)
        yield from sink


def _calls(leaves: list[Tensor]) -> dict[str, Call]:
    z, h, w = leaves
    y = torch.randint(len(w), (len(z),), device=z.device)
    a = torch.tensor(ALPHA, device=z.device)
    losses: dict[str, Callable[[], Tensor]] = {
        "loss": lambda: tampered_cross_entropy(z, y, ALPHA),
        "loss, smoothing, alpha on the device": lambda: tampered_cross_entropy(
            z, y, a, label_smoothing=0.1
        ),
        "loss, images": lambda: tampered_cross_entropy(
            z.view(4, 16, 1000).transpose(1, 2), y.view(4, 16), ALPHA
        ),
        "loss, incoming gradient of 1/3": lambda: tampered_cross_entropy(z, y, ALPHA) / 3,
        "loss, autocast": lambda: _under_autocast(h, w, y),
        "linear loss": lambda: tampered_linear_cross_entropy(h, w, y, ALPHA),
        "linear loss, bfloat16": lambda: tampered_linear_cross_entropy(
            h.bfloat16(), w.bfloat16(), y, a
        ),
        "reference kernel": lambda: tampered_cross_entropy(z, y, ALPHA, kernel="reference"),
    }
    return {name: lambda loss=loss: loss().backward() for name, loss in losses.items()}  # type: ignore[misc]


def _under_autocast(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    # A context of its own for every call: it keeps the weights' casts, and a graph that is captured
    # must not meet those of another stream.
    with torch.autocast(hidden.device.type, torch.bfloat16):
        return tampered_cross_entropy(F.linear(hidden, weight), target, ALPHA)


def _call_without_waiting(call: Call, device: torch.device) -> None:
    if device.type != "cuda":
        call()
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        call()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _difference_of_replay(call: Call, leaves: list[Tensor], device: torch.device) -> float:
    """Between the gradients that a replayed graph adds and those of a call."""
    for leaf in leaves:
        leaf.grad = torch.zeros_like(leaf)
    replay = captured(call, device)
    gradients = []
    for function in (replay, call):
        for leaf in leaves:
            assert leaf.grad is not None
            leaf.grad.zero_()
        function()
        synchronize(device)
        gradients.append([leaf.grad.clone() for leaf in leaves if leaf.grad is not None])
    for leaf in leaves:
        leaf.grad = None
    pairs = zip(*gradients, strict=True)
    return max((one - other).abs().max().item() for one, other in pairs)


def _difference_of_compiled(mode: str, device: torch.device) -> float:
    """Between the gradients of a compiled model with its loss and the same uncompiled."""
    torch.compiler.reset()
    net = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 1000)).to(device)
    loss_fn = TamperedCrossEntropyLoss(ALPHA, label_smoothing=0.1)
    target = torch.randint(1000, (64,), device=device)
    compiled = torch.compile(lambda x: loss_fn(net(x), target), mode=mode, fullgraph=True)
    images = torch.randn(64, 32, device=device)
    gradients: list[Tensor] = []
    for function in (compiled, compiled, compiled, lambda x: loss_fn(net(x), target)):
        net.zero_grad()
        function(images).backward()
        grad = next(net.parameters()).grad
        assert grad is not None
        gradients.append(grad.clone())
    return (gradients[-2] - gradients[-1]).abs().max().item()
