"""What only a GPU can show of this package, in one command of at most nine minutes.

Versions and the machine's ceilings; the tests that need a GPU; waits, graphs and compiled calls;
the loss and the loss from hidden states beside torch's and other packages'; the training step
beside a bare loop and timm's; whole runs and a small study. Each section is a process of its own
with a limit of time; its rows are on disk as they are found. A table comes last.

Nothing is installed and nothing is loaded: torch with Triton is enough for the loss, the `train`
extra for the rest. Liger's, Apple's and timm's code are measured where they are installed.
"""

import argparse
import csv
import importlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path

import torch

from page_tables import slug
from timer import RESULTS, Row, device_name, print_table, stamp

# Sections in the order in which they run, and the most seconds that each may take.
SECTIONS = {
    "environment": 30,
    "suite": 150,
    "behaviour": 45,
    "loss": 120,
    "step": 80,
    "linear": 50,
    "program": 110,
}
LEAST = 15.0  # a section is not begun with fewer seconds
MARGIN = 10.0  # what a section leaves for the end of what it has begun
ON_A_CPU = 8  # times as long: nothing is measured there, and others may have the cores


def run_section(name: str, device: torch.device, seconds: float, folder: Path) -> None:
    """Write the rows of one section, in this process."""
    measure = importlib.import_module(f"gpu.{name}").measure
    rows: Iterator[Row] = measure(device, time.monotonic() + seconds - MARGIN)
    for row in rows:
        stamp([row], device, torch.get_num_threads())
        _append(row, folder)
        print(f"{row.subject}; {row.variant}; {row.metric}: {row.p50} {row.unit}", flush=True)


def _append(row: Row, folder: Path) -> None:
    path = folder / f"{row.date}-{slug(row.device)}-{row.benchmark}.csv"
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(asdict(row))


def check(args: argparse.Namespace, device: torch.device) -> int:
    """Run the sections one after the other; returns how many did not end well."""
    args.out.mkdir(parents=True, exist_ok=True)
    # Of the same machine and day, the last check counts.
    for name in ("environment", "behaviour", "loss", "linear", "step", "program"):
        for path in args.out.glob(f"*-{slug(device_name(device))}-gpu-{name}.csv"):
            path.unlink()
    slowness = 1 if device.type == "cuda" else ON_A_CPU
    ends, num_failed = time.monotonic() + slowness * args.seconds, 0
    for name in args.sections:
        limit = min(slowness * float(SECTIONS[name]), ends - time.monotonic())
        if limit < LEAST:
            print(f"== {name}: no time left", flush=True)
            num_failed += 1
            continue
        print(f"== {name}, at most {limit:.0f} s", flush=True)
        command = [sys.executable, __file__, "--only", name, "--seconds", f"{limit:.0f}"]
        command += ["--device", str(device), "--out", str(args.out)]
        log = args.out / f"log-{name}.txt"
        with log.open("w") as file:
            try:
                code = subprocess.run(
                    command, stdout=file, stderr=subprocess.STDOUT, timeout=limit + MARGIN
                ).returncode
            except subprocess.TimeoutExpired:
                code = 124
        if code:
            num_failed += 1
            print(f"   ended with {code}: {log}", *_last_lines(log), sep="\n   ", flush=True)
    return num_failed


def _last_lines(path: Path) -> list[str]:
    return path.read_text(errors="replace").strip().splitlines()[-5:]


def print_results(folder: Path, device: torch.device) -> None:
    """All rows of this device in the folder as one table."""
    rows = []
    for path in sorted(folder.glob(f"*-{slug(device_name(device))}-*.csv")):
        with path.open(newline="") as file:
            found = [Row(**row) for row in csv.DictReader(file)]
        rows += [row for row in found if row.benchmark.startswith("gpu-")]
    print_table(rows)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--device",
        default="cuda",
        help="cuda, or cpu, which goes the same way at small size (default: cuda)",
    )
    parser.add_argument(
        "--seconds", type=float, default=525, metavar="S", help="of all sections (default: 525)"
    )
    parser.add_argument(
        "--sections",
        nargs="+",
        choices=SECTIONS,
        default=list(SECTIONS),
        metavar="NAME",
        help=f"of {', '.join(SECTIONS)} (default: all)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=RESULTS,
        metavar="DIR",
        help="folder of the tables and the logs (default: benchmarks/results)",
    )
    parser.add_argument("--only", choices=SECTIONS, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            "gpu_check.py: torch sees no GPU here; --device cpu tries the check itself"
        )
    if args.only:
        run_section(args.only, device, args.seconds, args.out)
        return
    num_failed = check(args, device)
    print_results(args.out, device)
    if num_failed:
        raise SystemExit(f"gpu_check.py: {num_failed} of {len(args.sections)} sections fell short")


if __name__ == "__main__":
    main()
