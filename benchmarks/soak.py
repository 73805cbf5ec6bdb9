"""Memory and open files of a long run: 10,000 steps on the digits, evaluated and saved.

The process is looked at from outside, through /proc, twice a second. What grows shows between
the first and the last quarter of the looks; the first tenth is warm-up.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from timer import Row, percentiles, print_bound, print_table, report_progress, stamp, write_csv

ROOT = Path(__file__).parent.parent
STEPS, STEPS_PER_EPOCH = 10_000, 22  # 1,347 images in batches of 64
MAX_GROWTH = 1.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS, help="of the run (10,000)")
    parser.add_argument("--save", action="store_true", help="write a result file")
    args = parser.parse_args()
    epochs = -(-args.steps // STEPS_PER_EPOCH)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "train.py"), "--epochs", str(epochs)]
        command += ["--batch-size", "64", "--lr", "0.05", "--recovery-interval", "50"]
        command += ["--modify-softmax", "0.25", "--model-ema", "--output", folder]
        looks = watch(command, epochs)
    looks = looks[len(looks) // 10 :]
    rows = []
    for name, unit, values in (
        ("memory", "MiB", [memory for memory, _ in looks]),
        ("open files", "files", [float(number) for _, number in looks]),
    ):
        quarter = max(1, len(values) // 4)
        growth = median(values[-quarter:]) / median(values[:quarter])
        subject = f"digits, {epochs * STEPS_PER_EPOCH} steps"
        row = Row("soak", subject, "program", name, unit, **percentiles(values))
        row.ratio_to, row.ratio = "its first quarter", f"{growth:.4f}"
        rows.append(row)
        print_bound(f"{name}, last quarter / first", growth, below=MAX_GROWTH)
    stamp(rows, torch.device("cpu"), 1)
    print_table(rows)
    if args.save:
        print(write_csv(rows, "soak"))


def watch(command: list[str], epochs: int) -> list[tuple[float, int]]:
    """Memory in MiB and open files of a run, twice a second."""
    looks = []
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        proc = Path(f"/proc/{process.pid}")
        while process.poll() is None:
            try:
                status = (proc / "status").read_text()
                memory = next(line for line in status.splitlines() if line.startswith("VmRSS"))
                looks.append((int(memory.split()[1]) / 1024, len(list((proc / "fd").iterdir()))))
            except (OSError, StopIteration):
                break  # it has just ended
            report_progress(f"soak: {epochs} epochs, {time.perf_counter() - started:.0f} s")
            time.sleep(0.5)
        if process.wait():
            raise SystemExit(f"the run ended with {process.returncode}")
    report_progress("")
    return looks


if __name__ == "__main__":
    main()
