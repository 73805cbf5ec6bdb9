"""Interleaved timings and peak memory, their percentiles, and the CSV that they are kept in.

A shared machine drifts by more than what is to be measured. So the things compared take
turns in one process, the order turned round every time, and a ratio of two speeds is the
median of the ratios within each turn; what slows one down slows its neighbour down as well.
"""

import csv
import gc
import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import date
from itertools import accumulate
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

RESULTS = Path(__file__).parent / "results"


@dataclass
class Row:
    """A line of a result file. What a row does not have is empty.

    Attributes:
        benchmark: the program that measured it.
        subject: what was measured.
        variant: which way of doing it.
        metric, unit: of the percentiles.
        p20, p50, p80: over the turns; p50 is "not measured" where the machine cannot.
        ratio_to: what `ratio` compares with: a variant, or what the row says.
        ratio: this row's by that one's: of speeds, the median of the ratios within a turn.
    """

    benchmark: str
    subject: str
    variant: str
    metric: str
    unit: str
    p20: str = ""
    p50: str = ""
    p80: str = ""
    ratio_to: str = ""
    ratio: str = ""
    device: str = ""
    threads: str = ""
    python: str = ""
    torch: str = ""
    timm: str = ""
    date: str = ""


def interleave(
    variants: Mapping[str, Callable[[], object]],
    num_turns: int,
    device: torch.device,
    label: str,
    num_warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Call the variants in turn; returns the seconds of every call, by variant.

    On a GPU by its own clock, elsewhere by `clock`.
    """
    for function in variants.values():
        for _ in range(num_warmup):
            function()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    for turn in range(num_turns):
        report_progress(f"{label}: turn {turn + 1}/{num_turns}")
        for name in names:
            seconds[name].append(_time(variants[name], device, clock))
        names.reverse()
    report_progress("")
    return seconds


def seconds_of_tree() -> float:
    """User and system seconds of this process and of the children that it has now."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == os.getpid():
                ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def _time(
    function: Callable[[], object],
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Seconds of a call; on a GPU, by its own clock and to the end of its work."""
    if device.type != "cuda":
        started = clock()
        function()
        return clock() - started
    torch.cuda.synchronize(device)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    function()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000


def calls_per_turn(function: Callable[[], object], device: torch.device) -> int:
    """How many calls take some 20 ms, so that the clock and the launch do not count."""
    function()
    return min(1000, max(1, round(0.02 / min(_time(function, device) for _ in range(3)))))


def peak_memory(
    function: Callable[[], object], forget: Callable[[], object], device: torch.device
) -> int:
    """Bytes that a call holds at its worst moment, above what is held when it starts.

    From torch's allocators: of a GPU their own count, of a CPU the profiler's events.

    Args:
        function: called twice, measured the second time.
        forget: gives up what the call leaves, gradients say.
        device: whose memory.
    """
    function()
    forget()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        held = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        function()
        return torch.cuda.max_memory_allocated(device) - held
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it would write of every start and stop
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profiler:
        function()
    events = profiler.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return max(accumulate((num_bytes for _, num_bytes in changes), initial=0))


def time_rows(
    benchmark: str, subject: str, own: str, seconds: dict[str, list[float]], num_calls: int
) -> list[Row]:
    """Rows of ms a call of every variant, and of `own` by each other one's."""
    rows = []
    for name, values in seconds.items():
        milliseconds = [1e3 * value / num_calls for value in values]
        rows.append(Row(benchmark, subject, name, "time", "ms", **percentiles(milliseconds)))
    for name, values in seconds.items():
        if name != own:
            ratios = [mine / theirs for mine, theirs in zip(seconds[own], values, strict=True)]
            row = Row(benchmark, subject, own, "relative time", "1", **percentiles(ratios))
            row.ratio_to, row.ratio = name, row.p50
            rows.append(row)
    return rows


def memory_rows(benchmark: str, subject: str, own: str, peaks: dict[str, int]) -> list[Row]:
    """Rows of the peak memory of every variant; the ratio is that one's by `own`'s."""
    return [
        Row(
            benchmark,
            subject,
            name,
            "peak memory",
            "MiB",
            p50=f"{peak / 2**20:.5g}",
            ratio_to="" if name == own else own,
            ratio="" if name == own else f"{peak / peaks[own]:.5g}",
        )
        for name, peak in peaks.items()
    ]


def percentiles(values: Sequence[float]) -> dict[str, str]:
    """p20, p50 and p80 as the fields of a row."""
    p20, p50, p80 = torch.tensor(values, dtype=torch.float64).quantile(
        torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    )
    return {name: f"{value:.5g}" for name, value in (("p20", p20), ("p50", p50), ("p80", p80))}


def stamp(rows: list[Row], device: torch.device, threads: int) -> None:
    """Say in every row where and with what it was measured."""
    has_timm = importlib.util.find_spec("timm") is not None
    timm = importlib.metadata.version("timm") if has_timm else ""
    for row in rows:
        row.device = device_name(device)
        row.threads = str(threads)
        row.python = platform.python_version()
        row.torch = torch.__version__
        row.timm = timm
        row.date = date.today().isoformat()


def device_name(device: torch.device) -> str:
    """The processor's name and, of a CPU, the cores at hand."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    name = platform.processor() or platform.machine()
    if cpuinfo.exists():
        found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text())
        name = found[1].strip() if found else name
    has_affinity = hasattr(os, "sched_getaffinity")
    num_cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count()
    return f"{name} {num_cores} cores"


def print_table(rows: list[Row]) -> None:
    """The rows without where and with what: a column as wide as its widest cell."""
    names = [field.name for field in fields(Row)][1:10]
    cells = [names] + [[str(getattr(row, name)) for name in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(padded).rstrip())


def print_bound(what: str, value: float, at_least: float = 0.0, below: float = 0.0) -> None:
    """A line that says whether a figure keeps its bound."""
    holds = value < below if below else value >= at_least
    bound = f"below {below:g}" if below else f"at least {at_least:g}"
    print(f"{'ok    ' if holds else 'MISSED'}  {what}: {value:.4g} ({bound})")


def write_csv(rows: list[Row], name: str, adds: bool = False) -> Path:
    """Write results/<date>-<device>-<name>.csv; a file of that name is replaced, or added to."""
    slug = re.sub(r"[^a-z0-9]+", "-", rows[0].device.lower()).strip("-")
    path = RESULTS / f"{rows[0].date}-{slug}-{name}.csv"
    path.parent.mkdir(exist_ok=True)
    is_new = not (adds and path.exists())
    with path.open("w" if is_new else "a", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    return path


def report_progress(line: str) -> None:
    """One line on a terminal, over the last one; nothing elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
