"""The flags about the run: what is kept, measured and shown."""

from dataclasses import dataclass

from softmax_gradient_tampering.training.config.flag import flag


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """The flags about the run: what is kept, measured and shown."""

    seed: int = flag(42, "seed of initial weights, order and augmentation", unit="N")
    output: str = flag("", "folder of the run folders", unit="DIR", unset="output/train")
    no_resume_opt: bool = flag(False, "with --resume, begin with a new state of the optimizer")
    max_steps: int | None = flag(
        None, "stop after this many optimizer steps, resumably", unit="STEPS", unset="no limit"
    )
    eval_every: int = flag(
        1, "epochs from one evaluation to the next; the last epoch has one", unit="EPOCHS"
    )
    eval_metric: str = flag(
        "top1",
        "what makes a checkpoint the best: top1 or top5 accuracy, the balanced-accuracy that is "
        "the mean recall of the classes, or loss",
        unit="NAME",
        choices=("top1", "top5", "balanced-accuracy", "loss"),
    )
    on_nonfinite: str = flag(
        "stop",
        "what a loss or gradient that is not finite does: stop ends the run; skip leaves the step "
        "out",
        unit="WHAT",
        choices=("stop", "skip"),
    )
    checkpoint_hist: int = flag(2, "number of the best epochs whose checkpoints are kept", unit="N")
    recovery_interval: int = flag(
        0, "optimizer steps from one recovery checkpoint to the next; 0 is none", unit="STEPS"
    )
    validate: bool = flag(False, "evaluate --resume's checkpoint, and write nothing", "-v")
    final_validate: bool = flag(
        False,
        "print the last evaluation in full after the last epoch, with the logits' statistics",
    )
    save_predictions: bool = flag(
        False, "write the final logits of the validation set to predictions.npz"
    )
    dry_run: bool = flag(False, "print settings, sizes and learning rates; train and write nothing")
    log_interval: int = flag(20, "batches from one progress line to the next", unit="BATCHES")
    per_line: bool = flag(False, "print progress lines on a terminal too, in place of a bar")
    filter_norms: bool = flag(
        False, "record the norm of every convolution filter, and how many are zeroed"
    )
    log: tuple[str, ...] = flag(
        (),
        "send each evaluation to tensorboard, wandb or both",
        unit="NAME ...",
        unset="summary.csv alone",
        choices=("tensorboard", "wandb"),
    )
