"""How a GPU is timed: by its own clock, in a stream or in the replay of a graph, and the host's."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from timer import Row, percentiles

Call = Callable[[], object]


class Sink(list[Row]):
    """Rows of one benchmark; a failure of what is measured is one of them."""

    def __init__(self, benchmark: str) -> None:
        super().__init__()
        self.benchmark = benchmark

    def add(self, subject: str, variant: str, metric: str, unit: str, **figures: str) -> None:
        self.append(Row(self.benchmark, subject, variant, metric, unit, **figures))

    @contextmanager
    def trying(self, subject: str, variant: str, metric: str) -> Iterator[None]:
        """Go on after a failure, which is said and leaves the row of what was not measured."""
        try:
            yield
        except Exception as error:
            words = (str(error).strip() or "?").splitlines()
            print(f"{subject}, {variant}, {metric}: {type(error).__name__}: {words[0][:200]}")
            self.add(subject, variant, metric, "", p50="not measured")
        finally:
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def is_past(deadline: float) -> bool:
    return time.monotonic() > deadline


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(call: Call, number: int, device: torch.device) -> float:
    """Of one of so many calls, by the device's clock."""
    if device.type != "cuda":
        started = time.perf_counter()
        for _ in range(number):
            call()
        return (time.perf_counter() - started) / number
    torch.cuda.synchronize(device)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(number):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000 / number


def in_turns(
    calls: dict[str, Call], device: torch.device, budget: float = 0.1, turns: int = 5
) -> dict[str, list[float]]:
    """Seconds of a call of each, of so many turns; the order is turned round every time.

    Args:
        calls: by name.
        budget: seconds that a name may take in all its turns.
    """
    numbers = {}
    for name, call in calls.items():
        call()
        once = max(1e-6, min(seconds_of(call, 1, device) for _ in range(2)))
        numbers[name] = max(1, min(1000, int(budget / turns / once)))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for _ in range(turns):
        for name in names:
            seconds[name].append(seconds_of(calls[name], numbers[name], device))
        names.reverse()
    return seconds


def time_rows(
    sink: Sink, subject: str, own: str, metric: str, found: dict[str, list[float]]
) -> None:
    """Rows of microseconds a call, and of `own`'s by each other one's, turn by turn."""
    for name, seconds in found.items():
        figures = percentiles([1e6 * second for second in seconds])
        if name != own and own in found:
            ratios = [o / s for o, s in zip(found[own], seconds, strict=True)]
            figures |= {"ratio_to": own, "ratio": f"{1 / statistics.median(ratios):.4g}"}
        sink.add(subject, name, metric, "us", **figures)


def host_seconds(call: Call, device: torch.device, number: int = 20) -> float:
    """What the host needs to hand a call over while the device works on: the least of five."""
    best = float("inf")
    for _ in range(5):
        synchronize(device)
        started = time.perf_counter()
        for _ in range(number):
            call()
        best = min(best, (time.perf_counter() - started) / number)
    synchronize(device)
    return best


def captured(call: Call, device: torch.device) -> Call:
    """The replay of a call's graph; the call itself on a CPU."""
    call()
    if device.type != "cuda":
        return call
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay
