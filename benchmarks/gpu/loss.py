"""Forward and backward of the loss beside torch's and Liger's: graph, stream, host, memory, error.

A graph's replay is what the device does; in a stream the host's Python counts where it is longer.
Liger's loss reads the device, so that no graph holds it, and writes over its input: raw at alpha 1,
and of `alpha * z` where the logits have to stay.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from gpu.timing import Call, Sink, captured, host_seconds, in_turns, is_past, time_rows
from peers import logits_losses
from softmax_gradient_tampering import tampered_cross_entropy
from timer import Row, peak_memory

ALPHA = 0.25
TAMPERED, FLOOR = "tampered", "three passes"
BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32
SHAPES = (
    (BF16, 8192, 128_256),
    (BF16, 4096, 32_000),
    (BF16, 256, 1000),
    (F32, 256, 1000),
    (F32, 64, 10),
    (BF16, 4096, 1000),
    (F32, 4096, 32_000),
    (BF16, 4096, 50_257),
    (F16, 16_384, 32_000),
    (BF16, 16_384, 1000),
    (BF16, 512, 128_256),
)
# A compilation takes ten seconds: of these alone.
COMPILED = {(8192, 128_256), (4096, 32_000), (256, 1000)}
SMALL = ((F32, 64, 1000), (BF16, 8, 3000))

Loss = Callable[[Tensor, Tensor], Tensor]


def at_alpha(logits: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(ALPHA * logits, target) / ALPHA


def loss_functions(is_compiled: bool, is_gpu: bool) -> dict[str, Loss]:
    losses: dict[str, Loss] = {
        TAMPERED: lambda z, y: tampered_cross_entropy(z, y, ALPHA),
        "torch": F.cross_entropy,
        "torch, alpha": at_alpha,
    }
    if is_compiled:
        torch.compiler.reset()
        losses["torch, compiled"] = torch.compile(lambda z, y: F.cross_entropy(z, y), dynamic=False)
        losses["torch, alpha, compiled"] = torch.compile(at_alpha, dynamic=False)
    for name, loss_fn in (logits_losses() if is_gpu else {}).items():
        losses[f"{name}, raw"] = loss_fn
        losses[name] = lambda z, y, loss_fn=loss_fn: loss_fn(ALPHA * z, y) / ALPHA  # type: ignore[misc]
    return losses


def measure(device: torch.device, deadline: float) -> Iterator[Row]:
    is_gpu = device.type == "cuda"
    for dtype, num_rows, num_classes in SHAPES if is_gpu else SMALL:
        if is_past(deadline):
            return
        sink = Sink("gpu-loss")
        subject = f"{str(dtype).removeprefix('torch.')} {num_rows}x{num_classes}"
        torch.manual_seed(0)
        logits = torch.randn(num_rows, num_classes, device=device, dtype=dtype).mul_(3)
        logits.requires_grad_()
        target = torch.randint(num_classes, (num_rows,), device=device)
        _measure_shape(sink, subject, logits, target, (num_rows, num_classes) in COMPILED)
        yield from sink


def _measure_shape(
    sink: Sink, subject: str, logits: Tensor, target: Tensor, is_compiled: bool
) -> None:
    device = logits.device
    with sink.trying(subject, TAMPERED, "error"):
        _measure_errors(sink, subject, logits, target)
    steps: dict[str, Call] = {}

    def forget() -> None:
        logits.grad = None

    for name, loss_fn in loss_functions(is_compiled, device.type == "cuda").items():

        def step(loss_fn: Loss = loss_fn) -> None:
            forget()
            loss_fn(logits, target).backward()

        with sink.trying(subject, name, "time in a stream"):
            step()
            steps[name] = step
    time_rows(sink, subject, TAMPERED, "time in a stream", in_turns(steps, device))
    for name, call in steps.items():
        if logits.numel() < 2**25:
            figure = f"{1e6 * host_seconds(call, device):.5g}"
            sink.add(subject, name, "host time", "us", p50=figure)
        with sink.trying(subject, name, "peak memory"):
            peak = peak_memory(call, forget, device) / logits.nbytes
            sink.add(subject, name, "peak memory", "gradients", p50=f"{peak:.4g}")
    forget()
    replays: dict[str, Call] = {}
    for name, call in steps.items():
        if not name.startswith("liger"):
            with sink.trying(subject, name, "time in a graph"):
                replays[name] = captured(call, device)
    copy = torch.empty_like(logits, requires_grad=False)
    replays[FLOOR] = captured(lambda: copy.copy_(logits.detach()), device)
    found = in_turns(replays, device)
    found[FLOOR] = [1.5 * seconds for seconds in found[FLOOR]]  # a copy is two passes
    time_rows(sink, subject, TAMPERED, "time in a graph", found)


def _measure_errors(sink: Sink, subject: str, logits: Tensor, target: Tensor) -> None:
    """Of 64 rows against float64; the gradient's by its norm."""
    few, labels = logits[:64].detach().clone().requires_grad_(), target[:64]
    value = tampered_cross_entropy(few, labels, ALPHA)
    value.backward()
    exact = few.detach().double().requires_grad_()
    at_alpha(exact, labels).backward()
    assert few.grad is not None
    assert exact.grad is not None
    gradient = (few.grad.double() - exact.grad).norm() / exact.grad.norm()
    off = (value.double() - F.cross_entropy(exact.detach(), labels)).abs()
    for metric, error in (("error of the gradient", gradient), ("error of the value", off)):
        sink.add(subject, TAMPERED, metric, "1", p50=f"{error.item():.3g}")
