"""The configuration of a run: one flat, typed, frozen dataclass whose fields are the flags.

The first names, up to `modify_softmax`, are the published program's, with its meanings;
names that it lacks are timm's where timm has one.
"""

from dataclasses import dataclass, field
from typing import Any

Floats = tuple[float, ...]

RESAMPLING = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")


def flag(default: Any, help: str, *short: str, choices: tuple[Any, ...] = (), size: int = 0) -> Any:
    """A field that is a flag: its help, short names, allowed values, number of values."""
    metadata = {"help": help, "short": short, "choices": choices, "size": size}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Every flag of `sgt train`; see the fields."""

    # --- method
    modify_softmax: float = flag(0.0, "alpha of the softmax gradient tampering; 0 is off")
    smoothing: float = flag(0.0, "label smoothing")
    logit_stats: bool = flag(False, "print and record the logits' norm, mean, max, var")
    grad_stats: bool = flag(False, "print min and max of the logits' gradient, unscaled")
    loss_kernel: str = flag(
        "auto",
        "what computes the tampered loss; auto is the fastest for the device",
        choices=("auto", "reference", "blocks", "cpu", "triton"),
    )
    alpha_schedule: str = flag(
        "constant",
        "alpha over the epochs, from --modify-softmax to --alpha-end",
        choices=("constant", "linear", "cosine"),
    )
    alpha_end: float | None = flag(None, "alpha of the last epoch, with --alpha-schedule")
    equivalent_to: float | None = flag(
        None, "ordinary training, head and body re-set to equal --modify-softmax at this alpha"
    )
    custom_loss: bool = flag(False, "refused: the published experiment had no published use")

    # --- data
    data_dir: str | None = flag(None, "folder with train/ and val/; without any data, the digits")
    dataset: str = flag("", "a data set by timm's name, such as torch/cifar10", "-d")
    cifar: int = flag(0, "10 or 100: CIFAR from local files in --data_dir")
    train_split: str = flag("train", "name of the training split")
    val_split: str = flag("validation", "name of the validation split")
    holdout: float = flag(0.0, "validate on this share of the training set, held out by the seed")
    batch_size: int = flag(256, "batch size of a process", "-b")
    validation_batch_size_multiplier: int = flag(1, "validation batch in training batches", "-vb")
    workers: int = flag(
        14, "loader processes, at most the cores at hand; 0 reads in the loop", "-j"
    )
    pin_mem: bool = flag(True, "kept: memory is pinned wherever a GPU is used")
    no_prefetcher: bool = flag(False, "kept: there is one loader, and it changes nothing")
    use_multi_epochs_loader: bool = flag(False, "kept: workers always live across epochs")
    epoch_repeats: float = flag(0.0, "refused unless 0: it belonged to streamed data sets")
    save_images: bool = flag(False, "save the images of the logged batches in the run folder")
    dali: bool = flag(False, "load with NVIDIA DALI, decoding on the CPU")
    dali_gpu: bool = flag(False, "load with NVIDIA DALI, decoding on the GPU")
    dali_antialias: bool = flag(False, "antialiased training resizing with DALI (not published)")
    on_bad_image: str = flag(
        "stop",
        "a file that cannot be read stops the run; skip checks all first and leaves it out",
        choices=("stop", "skip"),
    )

    # --- model
    model: str | None = flag(None, "a timm model; default digits_mlp, resnet20 (CIFAR) or resnet18")
    pretrained: bool = flag(False, "start from timm's pretrained weights")
    initial_checkpoint: str = flag("", "start from the weights of this checkpoint")
    num_classes: int | None = flag(None, "classes; counted from the data when not given")
    gp: str | None = flag(None, "global pooling: fast, avg, max, avgmax or avgmaxc")
    img_size: int | None = flag(None, "side of the square images")
    input_size: tuple[int, ...] | None = flag(None, "channels, height, width", size=3)
    crop_pct: float | None = flag(None, "share of the image that the validation crop takes")
    mean: Floats | None = flag(None, "mean of the pixels, in [0, 1]")
    std: Floats | None = flag(None, "standard deviation of the pixels")
    interpolation: str = flag("", "validation resizing", choices=("", *RESAMPLING))
    drop: float = flag(0.0, "dropout rate")
    drop_connect: float | None = flag(None, "older name of --drop-path")
    drop_path: float | None = flag(None, "stochastic depth rate")
    drop_block: float | None = flag(None, "drop block rate")
    bn_tf: bool = flag(False, "TensorFlow's batch norm momentum and eps")
    bn_momentum: float | None = flag(None, "batch norm momentum")
    bn_eps: float | None = flag(None, "batch norm eps")
    sync_bn: bool = flag(False, "batch statistics over all processes (GPU)")
    dist_bn: str = flag(
        "",
        "running statistics after an epoch: reduce is the mean, else rank 0's",
        choices=("", "reduce", "broadcast"),
    )
    split_bn: bool = flag(False, "separate batch norm per augmentation split")
    torchscript: bool = flag(False, "refused: torch.jit is deprecated; --torchcompile")
    print_model: bool = flag(False, "print the model")
    zero_init_last: bool = flag(False, "zero-initialise residual branches (not published)")
    channels_last: bool = flag(True, "channels_last memory format")
    torchcompile: bool = flag(False, "compile the model with torch.compile")

    # --- optimizer
    opt: str = flag("sgd", "a timm optimizer; sgd is Nesterov's, momentum is not")
    opt_eps: float | None = flag(None, "optimizer eps")
    opt_betas: Floats | None = flag(None, "optimizer betas")
    momentum: float = flag(0.9, "momentum")
    weight_decay: float = flag(1e-4, "weight decay; biases and norms have none")
    clip_grad: float | None = flag(None, "clip the gradient at this norm, value or factor")
    clip_mode: str = flag("norm", "how to clip", choices=("norm", "value", "agc"))
    grad_accum_steps: int = flag(1, "batches of an optimizer step")

    # --- schedule
    sched: str = flag(
        "cosine",
        "schedule",
        choices=("cosine", "tanh", "step", "multistep", "poly", "plateau", "constant"),
    )
    sched_order: str = flag(
        "timm",
        "published: one epoch ahead, as the published loop did",
        choices=("timm", "published"),
    )
    lr: float = flag(0.1, "learning rate")
    lr_noise: Floats | None = flag(None, "where noise starts and ends, as shares of the epochs")
    lr_noise_pct: float = flag(0.67, "limit of the noise")
    lr_noise_std: float = flag(1.0, "standard deviation of the noise")
    lr_cycle_mul: float = flag(1.0, "each cycle is longer than the last by this factor")
    lr_cycle_limit: int = flag(1, "number of cycles")
    warmup_lr: float = flag(0.01, "learning rate at the start of the warm-up")
    min_lr: float = flag(1e-4, "lower bound of the learning rate")
    epochs: int = flag(90, "epochs, without the cool-down")
    start_epoch: int | None = flag(None, "start at this epoch, from 0")
    decay_epochs: float = flag(30.0, "epochs between drops (step)")
    warmup_epochs: int = flag(0, "epochs of linear warm-up, within --epochs")
    cooldown_epochs: int = flag(0, "further epochs at --min-lr (cosine, tanh, poly)")
    patience_epochs: int = flag(10, "epochs without improvement before a drop (plateau)")
    decay_rate: float = flag(0.1, "factor of a drop", "--dr")

    # --- augmentation
    no_aug: bool = flag(False, "no augmentation")
    scale: Floats = flag((0.08, 1.0), "area of the random crop", size=2)
    ratio: Floats = flag((3 / 4, 4 / 3), "aspect ratio of the random crop", size=2)
    hflip: float = flag(0.5, "probability of a horizontal flip")
    vflip: float = flag(0.0, "probability of a vertical flip")
    color_jitter: float = flag(0.4, "color jitter")
    aa: str | None = flag(None, "auto-augment policy, such as rand-m9-mstd0.5")
    aug_splits: int = flag(0, "augmentation splits: 0, or 2 and more")
    jsd: bool = flag(False, "Jensen-Shannon loss over the splits")
    reprob: float = flag(0.0, "probability of random erasing")
    remode: str = flag("const", "what erased pixels become", choices=("const", "rand", "pixel"))
    recount: int = flag(1, "erased areas")
    resplit: bool = flag(False, "no erasing in the first split")
    mixup: float = flag(0.0, "mixup alpha; 0 is off")
    cutmix: float = flag(0.0, "cutmix alpha; 0 is off")
    cutmix_minmax: Floats | None = flag(None, "cutmix by area in place of alpha", size=2)
    mixup_prob: float = flag(1.0, "probability of mixup or cutmix")
    mixup_switch_prob: float = flag(0.5, "probability of cutmix where both are on")
    mixup_mode: str = flag("batch", "mix by batch, pair or elem", choices=("batch", "pair", "elem"))
    mixup_off_epoch: int = flag(0, "first epoch without mixing; 0 never")
    train_interpolation: str = flag("random", "training resizing", choices=("random", *RESAMPLING))
    tta: int = flag(0, "refused unless 0: the published loaders made no augmented copies")

    # --- averaged model
    model_ema: bool = flag(False, "keep an exponential moving average of the weights")
    model_ema_force_cpu: bool = flag(False, "keep it on the CPU")
    model_ema_decay: float = flag(0.9998, "its decay")

    # --- precision and device
    amp: bool = flag(False, "mixed precision: float16 on a GPU, bfloat16 on a CPU")
    amp_dtype: str | None = flag(
        None, "mixed precision in this type", choices=("float16", "bfloat16")
    )
    apex_amp: bool = flag(False, "refused: apex is gone; --amp")
    native_amp: bool = flag(False, "the same as --amp")
    device: str | None = flag(None, "cuda, cpu ...; default a GPU where there is one")
    local_rank: int = flag(0, "kept: torchrun's environment is what counts")

    # --- run
    seed: int = flag(42, "of weights, order and augmentation")
    output: str = flag("", "folder of the run folders; default ./output/train")
    experiment: str = flag("", "name of the run folder; default time-model-size")
    resume: str = flag("", "a checkpoint to go on from, or auto with --experiment")
    no_resume_opt: bool = flag(False, "do not resume the optimizer")
    max_steps: int | None = flag(None, "stop after this many optimizer steps")
    eval_every: int = flag(1, "evaluate every N epochs, and after the last")
    train_continuous: int = flag(1, "older name of --eval-every")
    eval_metric: str = flag(
        "top1", "metric of the best checkpoint", choices=("top1", "top5", "loss")
    )
    on_nonfinite: str = flag(
        "stop", "what to do when a loss or gradient is not finite", choices=("stop", "skip")
    )
    checkpoint_hist: int = flag(2, "best checkpoints kept")
    recovery_interval: int = flag(0, "optimizer steps between recovery checkpoints; 0 none")
    validate: bool = flag(False, "evaluate only, and write nothing", "-v")
    final_validate: bool = flag(False, "print the measurements after the last epoch")
    save_predictions: bool = flag(False, "write the final validation logits to predictions.npz")
    dry_run: bool = flag(False, "resolve everything, print it, train nothing")
    log_interval: int = flag(20, "batches between progress lines")
    per_line: bool = flag(False, "progress lines on a terminal too")
    filter_norms: bool = flag(False, "record every filter's norm, and count zeroed ones")
    log: tuple[str, ...] = flag((), "further sinks", choices=("tensorboard", "wandb"))
    log_wandb: bool = flag(False, "the same as --log wandb")

    @property
    def evaluation_interval(self) -> int:
        """Epochs between evaluations, under either name."""
        return max(self.eval_every, self.train_continuous)

    @property
    def sinks(self) -> tuple[str, ...]:
        """The sinks of --log and --log-wandb, each once."""
        return tuple(dict.fromkeys((*self.log, *(("wandb",) if self.log_wandb else ()))))

    @property
    def uses_dali(self) -> bool:
        """Whether DALI loads, decoding wherever it does."""
        return self.dali or self.dali_gpu

    @property
    def is_mixing(self) -> bool:
        """Whether mixup or cutmix is on."""
        return self.mixup > 0 or self.cutmix > 0 or self.cutmix_minmax is not None


NOT_RECORDED = ("resume", "output", "experiment", "local_rank", "validate", "dry_run")
