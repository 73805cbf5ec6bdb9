"""Until settled: further seeds for the arms that are open, a few at a time."""

from softmax_gradient_tampering.studies.analysis.comparison import compare_arms, open_arms
from softmax_gradient_tampering.studies.plan.growth import with_next_seeds
from softmax_gradient_tampering.studies.results.collect import collect_tables
from softmax_gradient_tampering.studies.results.study_folder import StudyFolder


def add_seeds(study: StudyFolder, num_jobs: int) -> str:
    """Add seeds to a study whose runs are all done, if it has an arm that is not settled.

    One process at a time looks and adds; another one finds what that has added.

    Args:
        study: which is to be settled; its plan is rewritten.
        num_jobs: runs at a time; so many seeds are added that there is work for all.

    Returns:
        What was added, in a sentence; empty where every arm is settled, or has all its seeds.
    """
    known = study.plan
    with study.plan_lock():
        if study.plan.cells != known.cells:
            return "Seeds were added by another process"
        found = open_arms(compare_arms(collect_tables(study.path), only_metric=True))
        runs_a_seed = len(with_next_seeds(study.plan, found, 1).cells) - len(study.plan.cells)
        grown = with_next_seeds(study.plan, found, max(1, num_jobs // max(1, runs_a_seed)))
        if grown.cells == study.plan.cells:
            return ""
        study.rewrite(grown)
    arms = (f"{name} after {len(known.seeds_of(known.arm(name)))} seeds" for name in found)
    return f"Not settled: {', '.join(arms)}; {len(grown.cells) - len(known.cells)} runs more"
