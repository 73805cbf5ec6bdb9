"""A whole run, told in one screen: set-up, resumption, epochs, evaluation, records."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.training.checkpoint.folder import saved_args
from softmax_gradient_tampering.training.checkpoint.weights import load_checkpoint_weights
from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.config.refusals import check_config
from softmax_gradient_tampering.training.console import lines as console
from softmax_gradient_tampering.training.console.progress import Progress
from softmax_gradient_tampering.training.epoch_evaluation import evaluate_model
from softmax_gradient_tampering.training.processes.distributed import start_processes
from softmax_gradient_tampering.training.processes.preemption import (
    Interrupted,
    StopRequest,
    leave_on_signals,
)
from softmax_gradient_tampering.training.records import run_files as records
from softmax_gradient_tampering.training.run_folder import newest_checkpoint, open_run_folder
from softmax_gradient_tampering.training.session import Session
from softmax_gradient_tampering.training.setup.setup import Setup, set_up
from softmax_gradient_tampering.training.supervision import NotFinite


@dataclass(frozen=True)
class Result:
    """What a run left behind.

    Attributes:
        status: finished, already finished, stopped (--max-steps), interrupted (by a signal),
            validated or planned.
        exit_code: of the program: 0, or after a signal 143, for Ctrl-C 130.
        folder: the run folder, or None where nothing was written.
        rows: of summary.csv.
        measurements: nll, brier and ece, by prediction.
    """

    status: str
    folder: Path | None = None
    rows: list[records.Row] = field(default_factory=list)
    measurements: dict[str, dict[str, float]] = field(default_factory=dict)
    exit_code: int = 0


def run(
    config: Config, is_silent: bool = False, after_batch: Callable[[], None] = lambda: None
) -> Result:
    """Train, validate or plan, as a configuration says.

    Args:
        config: what to do.
        is_silent: print nothing.
        after_batch: called after every training batch, for a progress bar of one's own.

    Raises:
        UserError: something that the user can mend; what is on disk is whole.
    """
    check_config(config)
    processes = start_processes(config.device)
    try:
        with leave_on_signals():
            setup = set_up(config, processes)
        is_silent = is_silent or not processes.is_first
        progress = Progress(is_silent, setup.schedule.num_epochs, config.per_line)
        if config.dry_run:
            progress.say("\n".join(console.plan_lines(setup)))
            return Result("planned")
        if config.validate:
            return _validate(setup, progress)
        return _train(setup, progress, after_batch)
    finally:
        processes.close()


def _validate(setup: Setup, progress: Progress) -> Result:
    config = setup.config
    path = config.resume
    if path == "auto":
        newest = newest_checkpoint(config.output, config.experiment)
        if newest is None:
            raise UserError(f"--resume auto: no checkpoint of --experiment {config.experiment}")
        path = str(newest)
    if path:
        checkpoint = load_checkpoint_weights(setup.model, Path(path), config)
        saved = saved_args(checkpoint)
        alpha = saved.get("alpha_end") or saved.get("modify_softmax", 0)
        if alpha and not config.modify_softmax:
            progress.say(f"alpha {alpha} of softmax(alpha z) is the checkpoint's")
            setup.config = replace(config, modify_softmax=alpha)
    evaluation = evaluate_model(setup, setup.model, is_measured=True)
    progress.say("\n".join(console.validation_lines(evaluation)))
    return Result("validated", measurements=evaluation.measurements)


def _train(setup: Setup, progress: Progress, after_batch: Callable[[], None]) -> Result:
    request = StopRequest()
    with request.listen(), open_run_folder(setup) as run_folder:
        folder = run_folder.path
        if run_folder.is_finished:
            progress.say(f"{folder}: this run is finished; nothing to do")
            return Result("already finished", folder, run_folder.rows)
        session = Session(setup, folder, progress, request)
        if run_folder.checkpoint is not None:
            session.resume(run_folder.checkpoint)
        return _run_epochs(session, after_batch)


def _run_epochs(session: Session, after_batch: Callable[[], None]) -> Result:
    folder = session.folder
    try:
        session.begin()
        while not session.is_over:
            for _ in session.train_epoch():
                after_batch()
            if session.is_stopped:
                session.save_recovery()
                return Result("stopped", folder, session.state.rows)
            session.end_epoch()
        measurements = session.finish()
    except Interrupted as signal:
        session.save_interrupted(signal)
        rows = session.state.rows
        return Result("interrupted", folder, rows, exit_code=signal.exit_code)
    except NotFinite:
        raise
    except UserError:  # a file that cannot be read, say
        session.save_before_error()
        raise
    finally:
        session.close()
    return Result("finished", folder, session.state.rows, measurements)
