"""A whole run, told in one screen: plan, validate, or train from a run folder to its result."""

import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from softmax_gradient_tampering.data.factory import untested_classes
from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.training.checkpoint.content import (
    Checkpoint,
    load_checkpoint,
    saved_args,
)
from softmax_gradient_tampering.training.checkpoint.state import RunState
from softmax_gradient_tampering.training.checkpoint.weights import load_best_weights
from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.config.refusals import check_config
from softmax_gradient_tampering.training.console import lines as console
from softmax_gradient_tampering.training.console.progress import Progress
from softmax_gradient_tampering.training.measure.classes import unique_names
from softmax_gradient_tampering.training.measure.evaluator import Evaluator
from softmax_gradient_tampering.training.processes.distributed import start_processes
from softmax_gradient_tampering.training.processes.memory import (
    is_out_of_memory,
    memory_as_one_line,
)
from softmax_gradient_tampering.training.processes.preemption import (
    Interrupted,
    StopRequest,
    leave_on_signals,
)
from softmax_gradient_tampering.training.processes.waiting import BatchWait
from softmax_gradient_tampering.training.records.run_files import Row
from softmax_gradient_tampering.training.resume.comparison import compare_images
from softmax_gradient_tampering.training.resume.restoration import go_on_from
from softmax_gradient_tampering.training.resume.run_folder import (
    RunFolder,
    newest_checkpoint,
    open_run_folder,
)
from softmax_gradient_tampering.training.session import Session
from softmax_gradient_tampering.training.setup.setup import Setup, set_up
from softmax_gradient_tampering.training.step.position import Position
from softmax_gradient_tampering.training.supervision import NotFinite

_PATIENCE_S = 10.0


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
    rows: list[Row] = field(default_factory=list)
    measurements: dict[str, dict[str, float]] = field(default_factory=dict)
    exit_code: int = 0


@dataclass(frozen=True)
class Extent:
    """How much there is to do in a run that is set up.

    Attributes:
        num_batches: of an epoch.
        num_epochs: to train.
        num_val: samples of an evaluation.
        num_classes: logits of a sample.
        class_names: of the data set, as they are recorded.
        untested: those among them of which there is no sample to evaluate.
    """

    num_batches: int
    num_epochs: int
    num_val: int
    num_classes: int
    class_names: tuple[str, ...] = ()
    untested: tuple[str, ...] = ()


def run(
    config: Config,
    is_silent: bool = False,
    after_batch: Callable[[], None] = lambda: None,
    after_set_up: Callable[[Extent], None] = lambda _: None,
) -> Result:
    """Train, validate or plan, as a configuration says.

    Args:
        config: what to do.
        is_silent: print nothing.
        after_batch: called after every training batch, for a progress bar of one's own.
        after_set_up: called once, before anything is trained.

    Raises:
        UserError: something that the user can mend; what is on disk is whole.
    """
    check_config(config)
    request = StopRequest()
    with ExitStack() as closing:
        processes = start_processes(config.device)
        closing.callback(processes.close)
        closing.enter_context(memory_as_one_line(config.batch_size, processes.device))
        is_simple = processes.number == 1 and config.grad_accum_steps == 1
        wait = BatchWait(request, 0.0 if is_simple else _PATIENCE_S, config.batch_timeout)
        with leave_on_signals():
            setup = set_up(config, processes, while_waiting=wait)
        closing.callback(setup.data.close)
        after_set_up(_extent(setup))
        is_silent = is_silent or not processes.is_first
        progress = Progress(
            is_silent, setup.schedule.num_epochs, config.per_line, config.log_interval
        )
        if config.dry_run:
            return _plan(setup, progress)
        if config.validate:
            return _validate(setup, progress)
        return _train(setup, progress, request, after_batch)


def _extent(setup: Setup) -> Extent:
    num_batches, num_epochs = len(setup.data.train_loader), setup.schedule.num_epochs
    num_classes = setup.config.num_classes or 0
    dataset = setup.data.dataset
    names = unique_names(dataset.class_names)
    untested = tuple(names[label] for label in untested_classes(dataset) if label < len(names))
    return Extent(num_batches, num_epochs, dataset.num_val, num_classes, names, untested)


def _plan(setup: Setup, progress: Progress) -> Result:
    num_batches = len(setup.data.train_loader)
    lines = console.plan_lines(setup.config, _head_lines(setup), num_batches, setup.schedule)
    progress.say("\n".join(lines))
    checkpoint = _checkpoint_to_go_on_from(setup.config)
    if checkpoint is not None:
        go_on_from(checkpoint, setup, checkpoint.path.parent, progress.say)
    elif setup.config.resume:
        progress.say(f"No checkpoint of {setup.config.experiment} yet: the run starts anew")
    return Result("planned")


def _checkpoint_to_go_on_from(config: Config) -> Checkpoint | None:
    """What --resume names, opened and verified; nothing is written."""
    if config.resume == "auto":
        return newest_checkpoint(config.output, config.experiment)
    path = Path(config.resume)
    return Checkpoint(path, load_checkpoint(path)) if config.resume else None


def _validate(setup: Setup, progress: Progress) -> Result:
    config, model, path = setup.config, setup.trainer.model, setup.config.resume
    alpha = config.final_alpha
    checkpoint = None
    if path == "auto":
        newest = newest_checkpoint(config.output, config.experiment)
        if newest is None:
            raise UserError(f"--resume auto: no checkpoint of --experiment {config.experiment}")
        checkpoint = newest.content
    elif path:
        checkpoint = load_checkpoint(Path(path))
    elif not (config.initial_checkpoint or config.pretrained):
        progress.say("Warning: neither --resume nor --initial-checkpoint: the model is untrained")
    if checkpoint is not None:
        load_best_weights(model, checkpoint, config)
        for line in compare_images(checkpoint, config):
            progress.say(line)
        saved = saved_args(checkpoint)
        saved_alpha = saved.get("alpha_end") or saved.get("modify_softmax", 0)
        if saved_alpha and not config.modify_softmax:
            progress.say(f"alpha {saved_alpha} of softmax(alpha z) is the checkpoint's")
            alpha = saved_alpha
    evaluator = Evaluator(
        setup.data.eval_loader,
        setup.processes,
        setup.trainer.precision,
        alpha,
        progress.evaluated,
        setup.data.dataset.class_names,
    )
    try:
        evaluation = evaluator.evaluate(model, is_measured=True)
    finally:
        progress.stop()
    progress.say("\n".join(console.validation_lines(evaluation)))
    return Result("validated", measurements=evaluation.measurements)


def _train(
    setup: Setup, progress: Progress, request: StopRequest, after_batch: Callable[[], None]
) -> Result:
    model = re.sub(r"[^\w.-]+", "-", setup.config.model or "")  # of a hub's name or a folder's
    default_name = f"{model}-{setup.data.image_size}"
    opening = open_run_folder(setup.config, setup.processes, default_name)
    with request.listen(), opening as run_folder:
        folder = run_folder.path
        if run_folder.is_finished:
            progress.say(_finished_line(run_folder, setup))
            return Result("already finished", folder, run_folder.rows)
        checkpoint = run_folder.take_checkpoint()
        if checkpoint is None:
            state = RunState(Position(epoch=setup.config.start_epoch or 0))
        else:
            state, setup = go_on_from(checkpoint, setup, folder, progress.say)
            del checkpoint  # as large as the model and its optimizer
        session = Session(setup, state, run_folder, progress, request)
        try:
            for line in _head_lines(setup):
                progress.say(line)
            if setup.config.print_model:
                progress.say(str(setup.trainer.model))
            status = session.train(after_batch)
        except Interrupted as signal:
            session.save_interrupted(signal)
            return Result("interrupted", folder, state.rows, exit_code=signal.exit_code)
        except NotFinite:
            raise
        except Exception as error:
            # Out of memory in a step, the step is half done; in an evaluation nothing is.
            is_whole = is_out_of_memory(error) and session.is_at_end_of_epoch
            if is_whole or isinstance(error, UserError):  # a file that cannot be read, say
                session.save_before_error()
            raise
        finally:
            session.close()
        return Result(status, folder, state.rows, session.measurements)


def _head_lines(setup: Setup) -> list[str]:
    data, model = setup.data.dataset, setup.trainer.model
    lines = console.head_lines(setup.circumstances, data, model)
    return lines + console.warning_lines(
        setup.config, setup.schedule.num_epochs, setup.trainer.precision
    )


def _finished_line(run_folder: RunFolder, setup: Setup) -> str:
    """That a run is finished; where more epochs are asked for, what would go on with it."""
    folder, num_epochs = run_folder.path, setup.schedule.num_epochs
    if run_folder.num_epochs is None or num_epochs <= run_folder.num_epochs:
        return f"{folder}: this run is finished; nothing to do"
    return (
        f"{folder}: this run is finished, after {run_folder.num_epochs} epochs; to train it on to "
        f"{num_epochs}, at the learning rates of a run of that length, give in the place of "
        f"--resume auto: --resume {folder / 'last.pth.tar'}"
    )
