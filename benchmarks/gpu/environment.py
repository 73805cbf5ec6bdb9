"""The machine: versions, and the ceilings that other figures are to be read by."""

import importlib.metadata
import os
from collections.abc import Iterator
from functools import partial

import torch

from gpu.timing import Sink, host_seconds, seconds_of
from softmax_gradient_tampering.loss.kernels.selection import describe_kernel
from timer import Row

PACKAGES = (
    "triton",
    "timm",
    "torchvision",
    "liger-kernel",
    "cut-cross-entropy",
    "nvidia-dali-cuda130",
)


def measure(device: torch.device, deadline: float) -> Iterator[Row]:  # noqa: ARG001
    sink = Sink("gpu-environment")
    for name in PACKAGES:
        with sink.trying("versions", name, "version"):
            sink.add("versions", name, "version", "text", p50=importlib.metadata.version(name))
    sink.add("machine", "cores", "number", "1", p50=str(len(os.sched_getaffinity(0))))
    kernel = describe_kernel("auto", device)
    sink.add("machine", "kernel of the loss", "name", "text", p50=kernel)
    size = 2**30 if device.type == "cuda" else 2**22
    source = torch.randn(size, device=device, dtype=torch.bfloat16)
    copy = partial(torch.empty_like(source).copy_, source)
    seconds = min(seconds_of(copy, 5, device) for _ in range(3))
    figure = f"{2 * source.nbytes / seconds / 1e9:.5g}"
    sink.add("machine", "copy, read and written", "rate", "GB/s", p50=figure)
    del source, copy
    side = 8192 if device.type == "cuda" else 256
    matrix = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    seconds = min(seconds_of(lambda: matrix @ matrix, 10, device) for _ in range(3))
    figure = f"{2 * side**3 / seconds / 1e12:.4g}"
    sink.add("machine", f"bfloat16 product {side}^3", "rate", "TFLOP/s", p50=figure)
    one = torch.zeros(1, device=device)
    for metric, seconds in (
        ("time in a stream", seconds_of(lambda: one.add_(1), 1000, device)),
        ("host time", host_seconds(lambda: one.add_(1), device)),
    ):
        sink.add("machine", "x.add_(1)", metric, "us", p50=f"{1e6 * seconds:.4g}")
    yield from sink
