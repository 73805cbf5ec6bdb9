"""Write docs/benchmarks.md and its pictures from the files in results/, and nothing else."""

import argparse
import csv
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from bars import draw_bars
from gpu_page import gpu_sections
from page_tables import NOT_MEASURED, group, number, slug, variant_table
from timer import RESULTS, Row

DOCS = RESULTS.parents[1] / "docs"

INTRODUCTION = """# Benchmarks

*For whoever asks how fast it is, beside what they use now.*

Written by `benchmarks/write_page.py` from the files in
`benchmarks/results`; `make bench-page` writes it again.
[benchmarks/README.md](../benchmarks/README.md) says how the figures are measured, and how to
measure them elsewhere.

A ratio is a time of this package by that of another loss, the median over turns in which both
were measured one after the other: below 1, this package is faster. Ratios carry over to other
machines better than times, which stand only beside their device. What a device has no file for is
not measured; nothing here is an estimate. Figures are of the code of their date, the newest device
first.
"""

LOSS = """## The loss of logits

Forward and backward of the loss alone, float32 or as named, rows x classes, alpha 0.25. `torch`
is `F.cross_entropy(z, target)`, which has the gradient of alpha 1; `torch, alpha` is
`F.cross_entropy(alpha * z, target) / alpha`, which has this package's gradient and another value;
`published hook` is the published code's way to the gradient, which is right only at certain loss
scales ([the method](method.md#what-the-published-code-did-differently)); `tampered, blocks` is this
package's where it has no C++ compiler ([the kernels](architecture.md#the-kernels-contract)).
"""

SHAPES = """## The loss of logits by shape

`benchmarks/bench_shapes.py`: forward and backward on a CPU, this package's time by that of
`F.cross_entropy(z, target)`, which has the gradient of alpha 1; float32 logits (N, C) or
(N, C, d1, ...), contiguous, and class indices, or as named. One thread is measured in its CPU
time, two in wall time, on a machine with nothing else to do; `blocks` is this package's where it
has no C++ compiler. Torch's time at several megabytes depends on whether the allocator has pages
for it already: where it has none, they are its larger part, and the ratio is lower.
"""

LINEAR = """## From hidden states to the loss

`tampered_linear_cross_entropy`, forward and backward, with the gradients of hidden states and
classifier; rows x features x classes. `torch, whole logits` is `F.cross_entropy(F.linear(hidden,
weight), target)`; `torch, chunked` is torch's `F.linear_cross_entropy` with the chunks that it
chooses, `by 8` with chunks of an eighth of the rows. One thread of a CPU is measured in its CPU
time.
"""

STEP = """## The training step

What `benchmarks/bench_step.py` measures, against a bare PyTorch loop that does the same work; the
loss as a share of a resnet18 step.
"""

TIMM = """## Beside timm's training script and loader

Whole trainings by `benchmarks/bench_timm.py`, from the command to the last checkpoint, and loading
photos by `benchmarks/bench_loader.py`: the speed of this program by timm's, above 1 where it is
faster. `CPU time` is that of all processes, which programs beside it disturb less than the wall
time; figures of the loader of 2026-11-26 are by it, earlier ones by wall time. `before` is the code
before workers left images laid out as they are decoded, measured on the same day.
"""


def read_results(folder: Path) -> list[Row]:
    """The rows of all files; of a device and benchmark, those of its latest date.

    Raises:
        SystemExit: a file has other columns than the schema.
    """
    names = [field.name for field in fields(Row)]
    latest: dict[tuple[str, str], list[Row]] = {}
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames != names:
                raise SystemExit(f"{path.name} has the columns {reader.fieldnames}, not {names}")
            rows = [Row(**row) for row in reader]
        if rows:
            key = (rows[0].benchmark, rows[0].device)
            if key not in latest or rows[0].date >= latest[key][0].date:
                latest[key] = rows
    newest_first = sorted(latest.values(), key=lambda rows: rows[0].date, reverse=True)
    return [row for rows in newest_first for row in rows]


def write_page(rows: Sequence[Row], docs: Path) -> list[Path]:
    """Write the page and its pictures under `docs`; returns what was written."""
    written = []
    sections = [INTRODUCTION]
    for benchmark, text in (("loss", LOSS), ("linear", LINEAR)):
        if benchmark == "linear":
            sections += shape_sections([row for row in rows if row.benchmark == "shapes"])
        sections.append(text)
        by_device = group(row for row in rows if row.benchmark == benchmark)
        for found in by_device.values():
            picture = docs / "images" / f"benchmark-{benchmark}-{slug(found[0].device)}.svg"
            picture.parent.mkdir(parents=True, exist_ok=True)
            picture.write_text(draw_picture(found), encoding="utf-8")
            written.append(picture)
            sections.append(device_section(found, picture.name))
        is_measured_below = any(row.benchmark == f"gpu-{benchmark}" for row in rows)
        if not is_measured_below and not any(is_gpu(device) for device in by_device):
            sections.append(
                f"### GPU\n\n{NOT_MEASURED.capitalize()}. `make gpu-check` measures it, in "
                "nine minutes, where there is one.\n"
            )
    steps = [row for row in rows if row.benchmark == "step"]
    if steps:
        sections.append(STEP + "\n" + step_table(steps))
    beside_timm = [row for row in rows if row.benchmark in ("timm", "loader")]
    if beside_timm:
        sections.append(TIMM + "\n" + step_table(beside_timm))
    sections += gpu_sections([row for row in rows if row.benchmark.startswith("gpu-")])
    page = docs / "benchmarks.md"
    page.write_text("\n".join(sections), encoding="utf-8")
    return [page, *written]


def device_section(rows: Sequence[Row], picture: str) -> str:
    """Ratios, peak memory, errors and times of one device."""
    first = rows[0]
    threads = f"{first.threads} thread{'s' * (first.threads != '1')}"
    parts = [
        f"### {first.device}\n",
        f"{threads}, torch {first.torch}, Python {first.python}, {first.date}.\n",
        f"![Times of the other losses by this package's](images/{picture})\n",
        "Time, this package's by the other's (p20 to p80):\n",
        ratio_table(rows),
        "Peak memory above the inputs, in multiples of the gradients', which are part of it:\n",
        memory_table(rows),
    ]
    if any(row.unit == "ulp" for row in rows):
        parts.append(
            "Largest error against float64, in units in the last place of the largest number, "
            "64 rows, |z| up to 100, alpha 0.01, 0.25 and 1:\n"
        )
        parts.append(error_table(rows))
    parts += ["Time in ms, median (p20 to p80):\n", time_table(rows)]
    return "\n".join(parts)


def shape_sections(rows: Sequence[Row]) -> list[str]:
    """Ratios to torch's time of every device; a column for every variant and number of threads."""
    parts = [SHAPES] if rows else []
    for device, found in group(rows).items():
        first = found[0]
        cells = (
            (
                row.subject,
                f"{row.variant}, {row.threads} thread{'s' * (row.threads != '1')}",
                number(row.p50),
            )
            for row in found
            if row.metric == "relative time"
        )
        parts.append(f"### {device}, by shape\n")
        parts.append(f"Torch {first.torch}, Python {first.python}, {first.date}.\n")
        parts.append(variant_table(cells))
    return parts


def ratio_table(rows: Sequence[Row]) -> str:
    return variant_table(
        (row.subject, row.ratio_to, f"{number(row.p50)} ({number(row.p20)} to {number(row.p80)})")
        for row in rows
        if row.metric == "relative time"
    )


def time_table(rows: Sequence[Row]) -> str:
    return variant_table(
        (
            row.subject,
            row.variant,
            f"{number(row.p50)} ({number(row.p20)} to {number(row.p80)})"
            if row.p50 != NOT_MEASURED
            else NOT_MEASURED,
        )
        for row in rows
        if row.metric == "time"
    )


def memory_table(rows: Sequence[Row]) -> str:
    peaks = [row for row in rows if row.metric == "peak memory"]
    alone = {row.subject: float(row.p50) for row in peaks if row.variant.endswith("alone")}
    return variant_table(
        (row.subject, row.variant, f"{float(row.p50) / alone[row.subject]:.2f}")
        for row in peaks
        if not row.variant.endswith("alone")
    )


def error_table(rows: Sequence[Row]) -> str:
    return variant_table(
        (row.subject, f"{row.variant}: {row.metric.rsplit(' ', 1)[-1]}", number(row.p50))
        for row in rows
        if row.unit == "ulp"
    )


def step_table(rows: Sequence[Row]) -> str:
    lines = [
        f"| {row.device} | {row.subject}, {row.variant} | {row.metric} | {row.ratio_to} "
        f"| {number(row.ratio)} |"
        for row in rows
        if row.ratio
    ]
    head = "| device | what | figure | ratio to | ratio |\n|---|---|---|---|--:|"
    return "\n".join([head, *lines, ""])


def draw_picture(rows: Sequence[Row]) -> str:
    groups: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        if row.metric == "relative time":
            groups[row.subject][row.ratio_to] = 1 / float(row.p50)
    title = f"Time of other losses by this package's, {rows[0].device}: right of the line, slower"
    return draw_bars(title, groups, most=6.0)


def is_gpu(device: str) -> bool:
    """A CPU's name ends with the number of its cores."""
    return not re.search(r"\d+ cores$", device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    for path in write_page(read_results(RESULTS), DOCS):
        print(path)


if __name__ == "__main__":
    main()
