"""The demo: a small study of the digits with its controls, and its report."""

import argparse
from collections.abc import Sequence

from softmax_gradient_tampering.errors import UserError

NUM_SEEDS, NUM_EPOCHS, NUM_TUNING_SEEDS = 10, 40, 5
# A net without normalisation and with far more weight decay than it needs: where
# tampering is known to do something, and where tuning the baseline should do it too.
STUDY = (
    *("--alphas", "1", "0.5", "0.25", "0.1"),
    *("--controls", "equivalent", "tuned"),
    *("--grid", "lr=0.05,0.1", "weight_decay=5e-4,5e-3,2e-2"),
)
TRAINING = (
    *("--model", "digits_mlp_plain", "--batch-size", "64", "--lr", "0.05", "--min-lr", "0"),
    *("--weight-decay", "2e-2", "--checkpoint-hist", "1"),
)


def main(argv: Sequence[str]) -> None:
    """Run the study, or what is missing of it, and write its report."""
    parser = argparse.ArgumentParser(
        prog="sgt demo",
        description="Train a small net on scikit-learn's handwritten digits (1,797 real images) "
        "at alpha 1, which is ordinary training, and at 0.5, 0.25 and 0.1, with two controls: "
        "ordinary trainings re-set to coincide with each alpha, and a baseline with its learning "
        "rate and weight decay tuned. 110 runs, in under three minutes on two cores. Run again, "
        "it does what is missing. It ends with the first sentence of the report. Exit code: 0; 2 "
        "for a mistake and for runs that failed; 130 after Ctrl-C, 143 after SIGTERM.",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=NUM_SEEDS,
        help=f"train each arm with this many seeds [{NUM_SEEDS}]",
    )
    parser.add_argument(
        "--epochs",
        type=int,
        default=NUM_EPOCHS,
        help=f"train each run for this many epochs [{NUM_EPOCHS}]",
    )
    parser.add_argument(
        "--output", default="output/demo", help="write the study in this folder [output/demo]"
    )
    args = parser.parse_args(argv)
    for name in ("seeds", "epochs"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)}: must be at least 1")

    from softmax_gradient_tampering.studies.launch.run_study import run_study
    from softmax_gradient_tampering.studies.plan.request import parse_run
    from softmax_gradient_tampering.studies.report.printed import report_text
    from softmax_gradient_tampering.studies.report.report import write_report

    study = run_study(parse_run(study_words(args.seeds, args.epochs, args.output)))
    page = write_report(study.path)
    print(f"\nStudy:   {study.path}\nReport:  {page}\n\n{report_text(study.path)}")


def study_words(num_seeds: int, num_epochs: int, output: str) -> list[str]:
    """The command line of `sgt study run` that the demo is."""
    return [
        *("--name", f"digits-{num_seeds}-seeds-{num_epochs}-epochs", "--output", output),
        *STUDY,
        *("--seeds", str(num_seeds), "--tuning-seeds", str(min(num_seeds, NUM_TUNING_SEEDS))),
        *("--", *TRAINING, "--epochs", str(num_epochs)),
    ]
