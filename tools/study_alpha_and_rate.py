"""Runs the studies behind docs/choosing-alpha.md: every alpha at every learning rate, on digits.

usage: python tools/study_alpha_and_rate.py OUTPUT

OUTPUT keeps the studies, so that a second call does what is missing; what was measured of every
run goes to docs/results/2026-11-26-alpha-and-rate. 200 runs, some minutes of one core.
"""

import csv
import json
import platform
import sys
from pathlib import Path

import timm
import torch

from softmax_gradient_tampering.studies.launch.run_study import run_study
from softmax_gradient_tampering.studies.plan.request import parse_run
from softmax_gradient_tampering.studies.report.report import write_report

FOLDER = Path(__file__).parents[1] / "docs" / "results" / "2026-11-26-alpha-and-rate"
ALPHAS = ("1", "0.5", "0.25", "0.1")
TRAINING = ("--epochs", "20", "--batch-size", "64", "--min-lr", "0", "--checkpoint-hist", "1")
PLAIN = ("--model", "digits_mlp_plain")
# name: (what is trained, at which rates)
SETTINGS = {
    "SGD": ((*PLAIN, "--weight-decay", "5e-4"), ("0.0125", "0.025", "0.05", "0.1", "0.2")),
    "AdamW": (
        (*PLAIN, "--opt", "adamw", "--weight-decay", "0.05"),
        ("0.001", "0.002", "0.004", "0.008", "0.016"),
    ),
}
CALIBRATION = ("nll_plain", "nll_alpha", "nll_held_out", "ece_plain", "ece_alpha", "ece_held_out")
COLUMNS = (
    "setting",
    "lr",
    "arm",
    "seed",
    "state",
    "eval_top1",
    "logit_norm",
    *CALIBRATION,
    "factor",
)


def main() -> None:
    output = Path(sys.argv[1])
    rows = []
    for setting, (words, rates) in SETTINGS.items():
        for rate in rates:
            name = f"{setting.lower()}-{rate}"
            asked = ["--name", name, "--output", str(output), "--alphas", *ALPHAS]
            asked += ["--seeds", "5", "--jobs", "1", "--", *TRAINING, *words, "--lr", rate]
            study = run_study(parse_run(asked))
            write_report(study.path)
            with (study.path / "report-runs.csv").open(encoding="utf-8", newline="") as file:
                rows += [{"setting": setting, "lr": rate} | row for row in csv.DictReader(file)]
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "runs.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    about = {
        "date": "2026-11-26",
        "device": f"one core of {_processor()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "training": " ".join(TRAINING),
        "settings": {name: " ".join(words) for name, (words, _) in SETTINGS.items()},
    }
    (FOLDER / "about.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))


if __name__ == "__main__":
    main()
