"""The sections of the page about what `make gpu-check` found."""

from collections.abc import Callable, Sequence

from page_tables import NOT_MEASURED, group, number, variant_table
from timer import Row

INTRODUCTION = """## On a GPU

What `make gpu-check` found, alpha 0.25 for the loss. `tampered` is `tampered_cross_entropy`,
forward and backward; `torch` is `F.cross_entropy` (the gradient of alpha 1); `torch, alpha` has
this package's gradient and another value; Liger's loss writes over its logits (`raw`, alpha 1), or
is given `alpha * z` where they have to stay; `three passes` is the time of reading the logits twice
and writing a gradient once at the speed of a copy. `before` is the code before the mends that the
first run on a GPU led to, of the same day, on another machine of the same kind. The figures of
`tampered` are of the code between that run and today's: what was mended after them is not measured
yet, and the tests that need a GPU have not run whole since (154 failed in the first run: the tests'
own incoming gradients were on the CPU, and in one, bits were asked for that a GPU's compiler does
not promise).

In the replay of a graph the host's Python does not count; in a stream it does where it takes longer
than the device. Targets, not promises: in a graph at most 0.5 of torch's time, 1.0 of compiled
torch's, 1.3 of three passes; a training step at least 0.97 of a bare loop's speed with one wait
at most; from hidden states at most 1.1 of the fastest other's time.
"""


def gpu_sections(rows: Sequence[Row]) -> list[str]:
    """Of every device one section; without any, one that says so."""
    parts = [INTRODUCTION]
    for device, found in group(rows).items():
        first = found[0]
        parts.append(f"### {device}, by `make gpu-check`\n")
        parts.append(f"Torch {first.torch}, Python {first.python}, {first.date}.\n")
        for benchmark, section in _SECTIONS.items():
            of_section = [row for row in found if row.benchmark == benchmark]
            parts += section(of_section) if of_section else []
    if not rows:
        parts.append(f"{NOT_MEASURED.capitalize()} yet.\n")
    return parts


def _environment(rows: Sequence[Row]) -> list[str]:
    def words(row: Row) -> str:
        unit = "" if row.unit in ("text", "1", "") else f" {row.unit}"
        metric = f" ({row.metric})" if row.metric in ("host time", "time in a stream") else ""
        return f"{row.variant} {row.p50}{unit}{metric}"

    return ["Machine: " + "; ".join(map(words, rows)) + ".\n"]


def _loss(rows: Sequence[Row]) -> list[str]:
    parts = []
    for metric, title in (
        ("time in a graph", "Replay of a graph, microseconds"),
        ("time in a stream", "In a stream, microseconds"),
        ("host time", "The host's part, microseconds"),
        ("peak memory", "Peak memory above the inputs, in multiples of the gradient's"),
    ):
        parts.append(f"{title}:\n")
        parts.append(
            variant_table(
                (row.subject, row.variant, _figure(row)) for row in rows if row.metric == metric
            )
        )
    parts.append("Errors of `tampered` against float64, 64 rows; the gradient's by its norm:\n")
    parts.append(
        variant_table(
            (row.subject, row.metric.removeprefix("error of the "), _figure(row))
            for row in rows
            if row.metric.startswith("error")
        )
    )
    return parts


def _step(rows: Sequence[Row]) -> list[str]:
    rates = [row for row in rows if row.metric == "throughput"]
    others = [row for row in rows if row.metric != "throughput"]
    return [
        "The training step, images/s; in brackets the program's speed by that one's. `bare` trains "
        "on one batch that is on the device already; `timm` is timm's loader and scaler:\n",
        variant_table(
            (
                row.subject,
                row.variant,
                _figure(row) + (f" ({number(row.ratio)})" if row.ratio else ""),
            )
            for row in rates
        ),
        variant_table(
            (row.subject, f"{row.variant}: {row.metric}, {row.unit}", _figure(row))
            for row in others
        ),
    ]


def _linear(rows: Sequence[Row]) -> list[str]:
    return [
        "From hidden states to the loss, in a stream; rows x features x classes; peak memory above "
        "the inputs, the gradients in it. The others run at alpha 1, the same work:\n",
        *(
            f"{subject}:\n\n"
            + variant_table(
                (row.variant, f"{row.metric}, {row.unit}", _figure(row))
                for row in rows
                if row.subject == subject
                and row.metric in ("time", "peak memory")
                and not row.variant.endswith("alone")
            )
            for subject in dict.fromkeys(row.subject for row in rows)
        ),
    ]


def _behaviour(rows: Sequence[Row]) -> list[str]:
    held = [row for row in rows if "tests" not in row.variant]
    tests = [row for row in rows if "tests" in row.variant]
    lines = [f"- {row.subject}; {row.variant}; {row.metric}: {row.p50}" for row in held]
    of_tests = ", ".join(f"{row.p50} {row.metric}" for row in tests)
    about = f"- {tests[0].subject} ({tests[0].variant}): {of_tests}" if tests else ""
    return ["What has to hold:\n", "\n".join([*lines, about]).rstrip() + "\n"]


def _program(rows: Sequence[Row]) -> list[str]:
    seconds = {row.subject: row.p50 for row in rows if row.metric == "wall time"}
    lines = [
        f"- {row.subject}: exit code {row.p50}, {seconds.get(row.subject, NOT_MEASURED)} s"
        for row in rows
        if row.metric == "exit code"
    ]
    return ["Whole commands, wall time with the start included:\n", "\n".join(lines) + "\n"]


def _figure(row: Row) -> str:
    return row.p50 if row.p50 == NOT_MEASURED else number(row.p50)


_SECTIONS: dict[str, Callable[[Sequence[Row]], list[str]]] = {
    "gpu-environment": _environment,
    "gpu-loss": _loss,
    "gpu-linear": _linear,
    "gpu-step": _step,
    "gpu-behaviour": _behaviour,
    "gpu-program": _program,
}
