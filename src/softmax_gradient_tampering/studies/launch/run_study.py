"""A study's runs, from a request to finished runs or a line that says why not."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from softmax_gradient_tampering.studies.launch.cost import RunCost
from softmax_gradient_tampering.studies.launch.devices import check_processes
from softmax_gradient_tampering.studies.launch.driver import Driver
from softmax_gradient_tampering.studies.launch.progress import StudyProgress
from softmax_gradient_tampering.studies.launch.runner import (
    Runner,
    RunnerOptions,
    check_plan,
    open_runner,
    options_for_this_machine,
    set_up_arms,
)
from softmax_gradient_tampering.studies.launch.settling import add_seeds
from softmax_gradient_tampering.studies.plan.request import RunRequest
from softmax_gradient_tampering.studies.results.study_folder import (
    StudyFolder,
    create_study,
    missing_arms,
)
from softmax_gradient_tampering.terminal.streams import print_line

_INTERRUPTED, _TERMINATED = 130, 143


def run_study(request: RunRequest, is_silent: bool = False) -> StudyFolder:
    """Train the runs of a study that are not yet done, and further ones until it is settled.

    Raises:
        UserError: the study cannot be run, or a run of it failed.
    """
    check_processes(request.plan.processes_per_run, request.plan.config.get("device"))
    options = options_for_this_machine(request.machine, request.plan.processes_per_run)
    progress = StudyProgress(is_silent=is_silent)
    with end_on_interruption(request.path), open_runner(options) as runner:
        try:
            costs = _check(request, options, runner)
            study = create_study(request.path, request.plan)
            driver = Driver(study, runner, progress, request.keeps_checkpoints)
            driver.look()
            if rest := driver.describe_rest(costs, options.num_jobs):
                progress.say(rest)
            driver.run()
            while request.plan.settling is not None and not driver.has_failures:
                news = add_seeds(study, options.num_jobs)
                if not news:
                    break
                progress.say(news)
                driver.run()
        finally:
            progress.stop()
    driver.raise_for_failures()
    return study


def plan_study(request: RunRequest) -> StudyFolder:
    """Write the plan of a study, once one run of every arm has been set up; train nothing.

    Raises:
        UserError: the study cannot be run, or the folder holds another one.
    """
    options = options_for_this_machine(request.machine, request.plan.processes_per_run)
    with end_on_interruption(request.path), open_runner(options) as runner:
        _check(request, options, runner)
        return create_study(request.path, request.plan)


def check_study(request: RunRequest) -> None:
    """Set up one run of every arm that is not yet planned, and write nothing.

    Raises:
        UserError: the study cannot be run, or the folder holds another one.
    """
    options = options_for_this_machine(request.machine, request.plan.processes_per_run)
    if missing := missing_arms(request.path, request.plan):
        set_up_arms(request.plan.only(missing), options)


def _check(request: RunRequest, options: RunnerOptions, runner: Runner) -> dict[str, RunCost]:
    """Of every arm that is not yet planned, that it can be run, and what a run of it costs."""
    missing = missing_arms(request.path, request.plan)
    if not missing:
        return {}
    return check_plan(request.plan.only(missing), options, runner, request.path)


@contextmanager
def end_on_interruption(path: Path) -> Iterator[None]:
    """End on a signal with runs stopped, claims released, and a line that says so.

    SIGHUP, of a terminal that is closed, ends as SIGTERM does, but where nohup ignores it.
    """
    names: list[str] = []

    def leave(number: int, _: object) -> None:
        names.append(signal.Signals(number).name)
        raise SystemExit(_TERMINATED)

    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    except KeyboardInterrupt:
        print_line(f"Interrupted; the same command goes on with {path}")
        raise SystemExit(_INTERRUPTED) from None
    except SystemExit:
        name = names[0] if names else "itself"
        print_line(f"Stopped by {name}; the same command goes on with {path}")
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
