"""`sgt reproduce`: a published row as a study with its controls, and the row that it gives."""

from collections.abc import Sequence


def main(argv: Sequence[str]) -> None:
    """Train a row, or say what would be trained, or what a study that is there shows."""
    from softmax_gradient_tampering.studies.plan.reproduction import parse_reproduction

    asked = parse_reproduction(argv)

    from softmax_gradient_tampering.studies.report.reproduction import describe, report_row

    if asked.request is not None:
        print(describe(asked))

        from softmax_gradient_tampering.studies.launch.run_study import (
            check_study,
            plan_study,
            run_study,
        )

        if asked.action == "dry_run":
            check_study(asked.request)
            return
        if asked.action == "plan":
            plan_study(asked.request)
            print(f"\nPlanned; none started. Next: sgt study commands {asked.path}")
            return
        run_study(asked.request)
    print(f"\n{report_row(asked.row, asked.path)}")
