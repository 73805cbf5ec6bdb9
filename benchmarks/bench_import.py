"""What `import softmax_gradient_tampering` adds to `import torch`, and the wait for help.

Every figure is of a fresh interpreter, with the files in the disk cache. The difference
of two imports of torch is noisier than what is looked for, so the addition is also timed
inside the interpreter, once torch is there.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import torch

from timer import (
    Row,
    interleave,
    percentiles,
    print_bound,
    print_table,
    report_progress,
    stamp,
    write_csv,
)

TRAIN = Path(__file__).parent.parent / "train.py"
PACKAGE = "softmax_gradient_tampering"
TIMED_IMPORT = f"""
import time, torch
started = time.perf_counter()
import {PACKAGE}
print(time.perf_counter() - started)
"""


def run_python(*arguments: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def measure(num_turns: int) -> list[Row]:
    """Rows of seconds: torch, torch and the package, the package after torch, the help."""
    after_torch: list[float] = []
    variants = {
        "import torch": lambda: run_python("-c", "import torch"),
        "import torch and package": lambda: run_python("-c", f"import torch, {PACKAGE}"),
        "timed": lambda: after_torch.append(float(run_python("-c", TIMED_IMPORT))),
        "train.py -h": lambda: run_python(str(TRAIN), "-h"),
    }
    seconds = interleave(variants, num_turns, torch.device("cpu"), "fresh interpreters")
    del seconds["timed"], after_torch[0]  # the first was the warm-up
    alone, together = seconds["import torch"], seconds["import torch and package"]
    seconds["added, difference"] = [b - a for a, b in zip(alone, together, strict=True)]
    seconds["added, after torch"] = after_torch
    return [
        Row(
            "import",
            "help" if name.endswith("-h") else "package",
            name,
            "wall time",
            "s",
            **percentiles(values),
        )
        for name, values in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=15, metavar="N", help="turns (default: 15)")
    parser.add_argument(
        "--save", action="store_true", help="write results/<date>-<device>-import.csv"
    )
    args = parser.parse_args()

    report_progress("warming up")
    rows = measure(args.turns)
    stamp(rows, torch.device("cpu"), torch.get_num_threads())
    print_table(rows)
    print()
    seconds = {row.variant: float(row.p50) for row in rows}
    for name in ("added, difference", "added, after torch"):
        print_bound(f"{name}, s", seconds[name], below=0.1)
    print_bound("train.py -h, s", seconds["train.py -h"], below=3.0)
    if args.save:
        print(write_csv(rows, "import"))


if __name__ == "__main__":
    main()
