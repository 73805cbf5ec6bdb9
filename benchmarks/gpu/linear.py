"""From hidden states to the loss, as `bench_linear.py` measures it: in a stream."""

from collections.abc import Iterator

import torch

from bench_linear import GPU_SHAPES, Subject
from bench_linear import measure as measure_subject
from gpu.timing import Sink, is_past
from timer import Row


def measure(device: torch.device, deadline: float) -> Iterator[Row]:
    is_gpu = device.type == "cuda"
    for shape in GPU_SHAPES if is_gpu else ((64, 32, 500),):
        if is_past(deadline):
            return
        sink = Sink("gpu-linear")
        dtype = torch.bfloat16 if is_gpu else torch.float32
        subject = Subject(dtype, *shape, device)
        with sink.trying(str(subject), "tampered", "time"):
            for row in measure_subject(subject, 3):
                row.benchmark = sink.benchmark
                sink.append(row)
        yield from sink
