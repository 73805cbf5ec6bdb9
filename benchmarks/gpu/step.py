"""The program's training step of resnet18 beside a bare loop and timm's, by its data's way.

`bare` trains on one batch that is on the device already, in the program's precision and layout:
the ceiling. `timm` is timm's loader for the device (pinned batches, a copy beside the step) and
timm's scaler. The set is random uint8 images in memory.
"""

import copy
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice

import timm.data.loader
import timm.utils
import torch
import torch.nn.functional as F
from torch import nn
from torch.profiler import ProfilerActivity, profile

from bench_step import program_epoch
from gpu.timing import Sink, is_past, synchronize
from softmax_gradient_tampering.data.factory import MemoryDataset
from softmax_gradient_tampering.data.memory.loaders import Images
from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.processes.distributed import start_processes
from softmax_gradient_tampering.training.setup.setup import Setup, set_up
from timer import Row, percentiles

TURNS = 3


def measure(device: torch.device, deadline: float) -> Iterator[Row]:
    is_gpu = device.type == "cuda"
    size, batch, steps = (224, 256, 24) if is_gpu else (32, 8, 3)
    images = _make_images(size, batch, steps)
    for precision in ("bfloat16", "float16", "float32") if is_gpu else ("float32",):
        if is_past(deadline):
            return
        sink = Sink("gpu-step")
        subject = f"resnet18 {size}px, batch {batch}, {precision}"
        with sink.trying(subject, "program", "throughput"):
            _measure_precision(sink, subject, precision, images, device)
        yield from sink


def _make_images(size: int, batch: int, steps: int) -> tuple[Images, Images]:
    """The training images of so many steps, and two batches of them to evaluate on."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch * steps, 3, size, size)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    labels = torch.arange(len(images)) % 1000
    classes = tuple(map(str, range(1000)))
    few = Images(images[: 2 * batch], labels[: 2 * batch], classes)
    return Images(images, labels, classes), few


def _measure_precision(
    sink: Sink, subject: str, precision: str, images: tuple[Images, Images], device: torch.device
) -> None:
    is_half = precision != "float32"
    train, few = images
    dataset = MemoryDataset("random", images, ((0.5,) * 3, (0.29,) * 3), pad=0)
    config = Config(
        model="resnet18",
        data_dir="random",
        batch_size=len(few.labels) // 2,
        modify_softmax=0.25,
        lr=0.01,
        device=str(device),
        amp=is_half,
        amp_dtype=precision if is_half else None,
        num_classes=1000,
    )
    setup = set_up(config, start_processes(str(device)), dataset)
    dtype = getattr(torch, precision) if is_half else None
    epoch = iter(range(1000))
    runs: dict[str, Callable[[], int]] = {
        "program": lambda: sum(1 for _ in program_epoch(setup, next(epoch))),
        "bare": _bare(setup, train, dtype),
        "timm": _timm(setup, train, dtype),
    }
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(TURNS + 1):  # the first warms up
        for name, run in runs.items():
            synchronize(device)
            started = time.perf_counter()
            num_steps = run()
            synchronize(device)
            rate = num_steps * config.batch_size / (time.perf_counter() - started)
            rates[name] += [rate] if turn else []
    for name, found in rates.items():
        figures = percentiles(found)
        if name != "program":
            ratios = [own / other for own, other in zip(rates["program"], found, strict=True)]
            figures |= {"ratio_to": "program by it", "ratio": percentiles(ratios)["p50"]}
        sink.add(subject, name, "throughput", "images/s", **figures)
    if device.type == "cuda":
        sink.add(subject, "program", "waits for the device", "a step", p50=_waits(setup))
        sink.add(subject, "program", "device busy", "share of the time", p50=_busy(setup, device))


def _bare(setup: Setup, data: Images, dtype: torch.dtype | None) -> Callable[[], int]:
    """A loop over one batch that is on the device."""
    device, batch = setup.processes.device, setup.config.batch_size
    model = copy.deepcopy(setup.trainer.model).train()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
    images = torch.randn(batch, *data.images.shape[1:], device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = data.labels[:batch].to(device)

    def run() -> int:
        num_steps = len(data.labels) // batch
        for _ in range(num_steps):
            with torch.autocast(device.type, dtype, enabled=dtype is not None):
                loss = F.cross_entropy(model(images), labels)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        return num_steps

    return run


def _timm(setup: Setup, data: Images, dtype: torch.dtype | None) -> Callable[[], int]:
    """Timm's prefetching loader over the same images, and its scaler."""
    device, batch = setup.processes.device, setup.config.batch_size
    model = copy.deepcopy(setup.trainer.model).train()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    scaler = timm.utils.NativeScaler(device=device.type) if dtype is torch.float16 else None
    batches = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(data.images, data.labels),
        batch_size=batch,
        shuffle=True,
        pin_memory=device.type == "cuda",
        num_workers=0,
    )
    loader = timm.data.loader.PrefetchLoader(batches, device=device)
    loss_fn = nn.CrossEntropyLoss().to(device)

    def run() -> int:
        num_steps = 0
        for images, labels in loader:
            images = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, dtype, enabled=dtype is not None):
                loss = loss_fn(model(images), labels)
            optimizer.zero_grad()
            if scaler is None:
                loss.backward()
                optimizer.step()
            else:
                scaler(loss, optimizer)
            num_steps += 1
        return num_steps

    return run


def _waits(setup: Setup) -> str:
    """How often a step waits for the device, over eight of them, by torch's warnings."""
    places: Counter[str] = Counter()

    def note(message: Warning | str, _: type[Warning], file: str, line: int, *__: object) -> None:
        if "synchroniz" in str(message) and "prototype" not in str(message):
            places[f"{file.rsplit('/', 1)[-1]}:{line}"] += 1

    batches = islice(program_epoch(setup, 0), 9)
    next(batches)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = note  # type: ignore[assignment]
            for _ in batches:
                pass
    finally:
        torch.cuda.set_sync_debug_mode("default")
    print(f"waits of 8 steps: {dict(places)}")
    return f"{sum(places.values()) / 8:g}"


def _busy(setup: Setup, device: torch.device) -> str:
    """The share of eight steps' time in which kernels run, under torch's profiler."""
    batches = islice(program_epoch(setup, 0), 10)
    for _ in range(2):
        next(batches)
    synchronize(device)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        started = time.perf_counter()
        for _ in batches:
            pass
        synchronize(device)
        seconds = time.perf_counter() - started
    events = [e for e in found.key_averages() if e.device_type.name == "CUDA"]
    for event in sorted(events, key=lambda e: -e.self_device_time_total)[:25]:
        print(f"{event.self_device_time_total / 8:10.1f} us a step  {event.key[:110]}")
    return f"{sum(e.self_device_time_total for e in events) / 1e6 / seconds:.3g}"
