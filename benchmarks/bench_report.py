"""How long a report of many finished cells takes, and how much memory and page it needs.

The study is synthetic: run folders of made-up runs, written by the generator of the tests.
Reading and reporting run in a fresh interpreter, whose import of the libraries is in the
time and whose highest memory is the operating system's figure.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from timer import (
    Row,
    percentiles,
    print_bound,
    print_table,
    report_progress,
    stamp,
    write_csv,
)

ROOT = Path(__file__).parent.parent
MAX_SECONDS, MAX_GIB, MAX_MB = 20.0, 1.0, 1.5
REPORT = """
import json, resource, sys, time
started = time.perf_counter()
from pathlib import Path
from softmax_gradient_tampering.studies.results.collect import collect
from softmax_gradient_tampering.studies.report.report import write_report
imported = time.perf_counter()
page = write_report(Path(sys.argv[1]))
ended = time.perf_counter()
unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
figures = {"import": imported - started, "collect and report": ended - imported,
           "in all": ended - started, "peak": peak / 2**30, "page": page.stat().st_size / 1e6}
print(json.dumps(figures))
"""
ALPHAS = (0.9, 0.75, 0.5, 0.25, 0.2, 0.1, 0.05)


def make_study(folder: Path, num_cells: int, num_epochs: int) -> int:
    """A study of at least this many cells; returns how many."""
    sys.path.insert(0, str(ROOT))
    from tests.studies.synthetic import ARMS, BASELINE, FakeArm, Size, write_study

    tampered = [FakeArm(f"alpha-{alpha:g}", "tampered", alpha, 0.3) for alpha in ALPHAS]
    kinds = ("equivalent", "tuned", "tuning", "scheduled")
    controls = [arm for arm in ARMS if arm.kind in kinds]
    arms = [BASELINE, *tampered, *controls]
    num_seeds = -(-num_cells // len(arms))
    size = Size(num_epochs=num_epochs, num_samples=450, num_classes=10)
    report_progress(f"writing {len(arms) * num_seeds} run folders")
    write_study(folder, arms, range(num_seeds), size)
    return len(arms) * num_seeds


def measure(num_cells: int, num_epochs: int, num_turns: int) -> list[Row]:
    """Rows of seconds, GiB and MB of the report of one study."""
    turns: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "study"
        number = make_study(study, num_cells, num_epochs)
        for turn in range(num_turns):
            report_progress(f"turn {turn + 1}/{num_turns}")
            command = [sys.executable, "-c", REPORT, str(study)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            turns.append(json.loads(done.stdout))
    report_progress("")
    subject = f"{number} cells of {num_epochs} epochs, 450 x 10 predictions"
    units = {"peak": ("peak memory", "GiB"), "page": ("size of the page", "MB")}
    return [
        Row("report", subject, name, *units.get(name, ("wall time", "s")),
            **percentiles([turn[name] for turn in turns]))
        for name in turns[0]
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=int, default=1000, metavar="N", help="cells (1000)")
    parser.add_argument("--epochs", type=int, default=40, metavar="N", help="epochs (40)")
    parser.add_argument("--turns", type=int, default=3, metavar="N", help="turns (3)")
    parser.add_argument(
        "--save", action="store_true", help="write results/<date>-<device>-report.csv"
    )
    args = parser.parse_args()

    rows = measure(args.cells, args.epochs, args.turns)
    stamp(rows, torch.device("cpu"), torch.get_num_threads())
    print_table(rows)
    print()
    found = {row.variant: float(row.p50) for row in rows}
    print_bound("collect and report, import included, s", found["in all"], below=MAX_SECONDS)
    print_bound("peak memory, GiB", found["peak"], below=MAX_GIB)
    print_bound("page, MB", found["page"], below=MAX_MB)
    if args.save:
        print(write_csv(rows, "report"))


if __name__ == "__main__":
    main()
