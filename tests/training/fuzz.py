"""Hostile input for as long as is asked for: `make fuzz MINUTES=60`.

The fuzz tests of test_hostile_input.py, a round after another, each with other examples. Prints
what was tried by kind; ends with 1 if any test failed, and prints what it was given.
"""

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).with_name("test_hostile_input.py")
# Examples of a round: some ten seconds of each kind.
EXAMPLES = {
    "test_command_lines": 2000,
    "test_configurations_of_any_values": 2000,
    "test_configurations_of_any_bytes": 4000,
    "test_recipe_names": 10_000,
    "test_checkpoints_with_wrong_bytes": 3000,
    "test_checkpoints_with_wrong_values": 200,
}


def run_round(kind: str, seed: int) -> str:
    """The output of a failed test, or nothing."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", f"{TESTS}::{kind}", f"--hypothesis-seed={seed}"),
            *("-p", "no:cacheprovider", "-q"),
        ],
        env=os.environ | {"SGT_FUZZ_EXAMPLES": str(EXAMPLES[kind]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr if done.returncode else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (60)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first round")
    args = parser.parse_args()
    until = time.monotonic() + 60 * args.minutes
    tried: Counter[str] = Counter()
    num_failed, seed = 0, args.seed
    while time.monotonic() < until:
        for kind, examples in EXAMPLES.items():
            if output := run_round(kind, seed):
                num_failed += 1
                print(f"{kind} failed with --hypothesis-seed={seed}:\n{output}", flush=True)
            tried[kind] += examples
        seed += 1
        summary = ", ".join(f"{kind.removeprefix('test_')} {n:,}" for kind, n in tried.items())
        print(f"{summary}; failed: {num_failed}", flush=True)
    return 1 if num_failed else 0


if __name__ == "__main__":
    sys.exit(main())
