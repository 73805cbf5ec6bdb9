"""The tables of docs/choosing-alpha.md are made from committed results alone."""

import csv
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from scipy import stats

from softmax_gradient_tampering.studies.analysis.statistics import mean_interval

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
PAGE = ROOT / "docs" / "choosing-alpha.md"
RATES = RESULTS / "2026-11-26-alpha-and-rate" / "runs.csv"
STUDIES = {
    "2026-11-25-demo-digits": "digits, weight decay 2e-2",
    "2026-11-27-cifar-norm": "CIFAR-10 subset, batch norm",
    "2026-11-27-cifar-no-norm": "the same without norm, lr 0.02",
}
GAINS = (0.1, 0.2, 0.5, 1.0)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rate_table(setting: str) -> str:
    """Test accuracy of every alpha at every learning rate, its best one in bold."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in read(RATES):
        if row["setting"] == setting:
            assert row["state"] == "finished"
            values[row["arm"], row["lr"]].append(float(row["eval_top1"]))
    arms, rates = (list(dict.fromkeys(key[place] for key in values)) for place in (0, 1))
    lines = [f"| | {' | '.join(f'lr {rate}' for rate in rates)} |", f"|---|{'--:|' * len(rates)}"]
    for arm in arms:
        intervals = [mean_interval(values[arm, rate]) for rate in rates]
        best = max(interval.mean for interval in intervals)
        cells = [
            f"{'**' * (each.mean == best)}{each.mean:.2f}{'**' * (each.mean == best)} ± "
            f"{each.high - each.mean:.2f}"
            for each in intervals
        ]
        lines.append(f"| {arm.replace('-', ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def calibration_table() -> str:
    """The calibration error of what each study's alpha 1 and alpha 0.25 predict."""
    head = "| | alpha 1: softmax(z) | with a held-out factor | "
    head += "alpha 0.25: softmax(z) | softmax(alpha z) | with a held-out factor |"
    lines = [head, "|---|--:|--:|--:|--:|--:|"]
    for study, name in STUDIES.items():
        rows = {
            (row["arm"], row["measurement"]): row
            for row in read(RESULTS / study / "report-arms.csv")
        }
        cells = []
        for arm, measures in (
            ("alpha-1", ("plain", "held_out")),
            ("alpha-0.25", ("plain", "alpha", "held_out")),
        ):
            for measure in measures:
                row = rows[arm, f"ece_{measure}"]
                half = float(row["high"]) - float(row["mean"])
                cells.append(f"{float(row['mean']):.1f} ± {half:.1f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def num_seeds(gain: float, sd: float) -> int:
    """The fewest pairs in which a paired t test finds the gain four times in five, at 5 %."""
    for number in range(2, 100_000):
        critical = stats.t.ppf(0.975, number - 1)
        if stats.nct.sf(critical, number - 1, gain / sd * number**0.5) >= 0.8:
            return number
    raise AssertionError("no number is enough")


def seeds_table() -> str:
    """How many pairs of runs a gain of each size needs at the spread that each study had."""
    lines = [
        "| paired differences of | their spread (sd) | "
        + " | ".join(f"gain of {gain}" for gain in GAINS)
        + " |",
        f"|---|--:|{'--:|' * len(GAINS)}",
    ]
    for study, name in STUDIES.items():
        (row,) = (
            row
            for row in read(RESULTS / study / "report-differences.csv")
            if (row["arm"], row["reference"], row["measurement"])
            == ("alpha-0.25", "alpha-1", "eval_top1")
        )
        sd = float(row["sd"])
        cells = [str(num_seeds(gain, sd)) for gain in GAINS]
        lines.append(f"| {name} | {sd:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[], str]] = {
    "rates, SGD": partial(rate_table, "SGD"),
    "rates, AdamW": partial(rate_table, "AdamW"),
    "calibration": calibration_table,
    "seeds": seeds_table,
}


@pytest.mark.parametrize("name", TABLES)
def test_the_page_has_the_table_of_the_committed_results(name: str) -> None:
    table = TABLES[name]()
    assert table in PAGE.read_text(encoding="utf-8"), f"the table is\n{table}"


def test_a_gain_of_one_spread_needs_ten_pairs_and_half_of_it_34() -> None:
    """The textbook's numbers for a paired t test at 5 % and a power of 80 %."""
    assert num_seeds(gain=1.0, sd=1.0) == 10
    assert num_seeds(gain=0.5, sd=1.0) == 34
