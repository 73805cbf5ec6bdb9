"""What a configuration may not ask for: refused before anything is built or written."""

import math
from collections.abc import Callable

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.training.config.fields import Config

# Published flags that are refused, and why.
_REFUSED: tuple[tuple[str, str], ...] = (
    ("custom_loss", "the published experimental loss is not part of the method; leave it out"),
    ("torchscript", "torch.jit is deprecated; use --torchcompile"),
    ("apex_amp", "apex is no longer maintained; use --amp"),
    ("tta", "the published loaders made no augmented copies to average; leave it out"),
    ("epoch_repeats", "it belonged to streamed data sets; use more --epochs"),
)

# name: (what it must be, the test)
_Rule = tuple[str, Callable[[float], bool]]
_MAX_BITS = 64  # of a whole number: a seed has no more
_POSITIVE: _Rule = ("above 0", lambda value: value > 0)
_NOT_NEGATIVE: _Rule = ("at least 0", lambda value: value >= 0)
_PROBABILITY: _Rule = ("from 0 to 1", lambda value: 0 <= value <= 1)
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(
        ("batch_size", "validation_batch_size_multiplier", "grad_accum_steps", "epochs",
         "max_steps", "eval_every", "train_continuous", "log_interval", "num_classes",
         "decay_epochs", "decay_rate", "clip_grad", "recount", "img_size", "input_size", "std",
         "scale", "ratio", "bn_eps", "lr_cycle_mul", "lr_cycle_limit", "alpha_end",
         "equivalent_to"),
        _POSITIVE,
    ),
    **dict.fromkeys(
        ("modify_softmax", "lr", "warmup_lr", "min_lr", "weight_decay", "workers",
         "recovery_interval", "checkpoint_hist", "warmup_epochs", "cooldown_epochs",
         "patience_epochs", "start_epoch", "seed", "mixup", "cutmix", "momentum", "aug_splits",
         "color_jitter", "lr_noise", "batch_timeout"),
        _NOT_NEGATIVE,
    ),
    **dict.fromkeys(
        ("smoothing", "hflip", "vflip", "reprob", "mixup_prob", "mixup_switch_prob", "drop",
         "drop_path", "drop_connect", "drop_block", "model_ema_decay", "bn_momentum",
         "cutmix_minmax"),
        _PROBABILITY,
    ),
    "holdout": ("at least 0 and below 1", lambda value: 0 <= value < 1),
    "crop_pct": ("from 0.01 to 1", lambda value: 0.01 <= value <= 1),
}  # fmt: skip


def check_config(config: Config) -> None:
    """Refuse values and combinations that cannot be run.

    Raises:
        UserError: names the flag, its value, why, and what to do.
    """
    for name, why in _REFUSED:
        if getattr(config, name):
            raise UserError(f"--{name.replace('_', '-')} is refused: {why}")
    for name, value in vars(config).items():
        for number in value if isinstance(value, tuple) else (value,):
            if not isinstance(number, int | float):
                continue
            must_be, is_right = _RULES.get(name, ("finite", lambda _: True))
            if isinstance(number, int) and number.bit_length() > _MAX_BITS:
                must_be, is_right = "a whole number of at most 64 bits", lambda _: False
            elif not math.isfinite(number):
                must_be, is_right = "finite", lambda _: False
            if not is_right(number):
                raise UserError(f"--{name.replace('_', '-')} {number!r:.60}: must be {must_be}")
    _check_combinations(config)
    _check_alpha(config)
    _check_dali(config)


def _check_combinations(config: Config) -> None:
    if config.aug_splits == 1:
        raise UserError("--aug-splits 1: must be 0 or at least 2; one is the clean image")
    if config.jsd and not config.aug_splits:
        raise UserError("--jsd needs --aug-splits 2 or more, the splits that it compares")
    if config.jsd and config.modify_softmax:
        raise UserError(
            f"--jsd with --modify-softmax {config.modify_softmax}: the divergence between splits "
            "has no target distribution to temper against; use one of the two"
        )
    if config.jsd and config.class_weights:
        raise UserError("--jsd with --class-weights: its loss takes no weights; use one of the two")
    if config.loss_kernel != "auto" and not config.modify_softmax:
        raise UserError(
            f"--loss-kernel {config.loss_kernel} without --modify-softmax: the ordinary "
            "cross-entropy is torch's own; leave it out, or give --modify-softmax 1"
        )
    if config.is_mixing and config.aug_splits:
        raise UserError("--mixup and --cutmix do not go with --aug-splits; use one of the two")
    if config.split_bn and config.aug_splits < 2:
        raise UserError("--split-bn needs --aug-splits 2 or more")
    if config.is_mixing and config.batch_size < 2:
        raise UserError(f"--batch-size {config.batch_size}: mixing needs at least 2")
    if config.input_size and config.input_size[0] not in (1, 3):
        raise UserError(
            f"--input-size {config.input_size[0]} channels: images are read with 1 or 3"
        )
    if config.lr_noise and len(config.lr_noise) > 2:
        raise UserError("--lr-noise: give where the noise starts, and where it ends")
    for name in ("scale", "ratio", "cutmix_minmax"):
        low, high = getattr(config, name) or (0, 0)
        if low > high:
            raise UserError(f"--{name.replace('_', '-')} {low} {high}: the smaller one first")
    if config.resume == "auto" and not config.experiment:
        raise UserError("--resume auto needs --experiment NAME, the run to go on with")
    if config.no_resume_opt and not config.resume:
        raise UserError("--no-resume-opt needs --resume")
    name = config.experiment
    is_plain = name.isprintable() and "/" not in name and name == name.strip()
    if name.startswith(".") or not is_plain or len(name.encode()) > 200:
        raise UserError(
            f"--experiment {name!r:.60}: must be a plain folder name, without / or control "
            "characters, no . or blank at its start, of at most 200 bytes"
        )


def _check_alpha(config: Config) -> None:
    """Refuse an alpha schedule or an equivalent training that is not one."""
    is_scheduled = config.alpha_schedule != "constant"
    if is_scheduled and not (config.modify_softmax and config.alpha_end):
        raise UserError(
            f"--alpha-schedule {config.alpha_schedule} goes from --modify-softmax to --alpha-end; "
            "give both"
        )
    if config.alpha_end is not None and not is_scheduled:
        raise UserError(
            f"--alpha-end {config.alpha_end} needs --alpha-schedule linear or cosine, the way there"
        )
    if config.equivalent_to is None:
        return
    what = f"--equivalent-to {config.equivalent_to}"
    if config.modify_softmax not in (0, 1) or is_scheduled:
        raise UserError(
            f"{what} with --modify-softmax {config.modify_softmax}: the equivalent training is one "
            "with the ordinary cross-entropy; leave --modify-softmax out"
        )
    if config.clip_grad and config.clip_mode != "agc":
        raise UserError(
            f"{what} does not hold with --clip-grad at --clip-mode {config.clip_mode}: the clipped "
            "gradient is another than the one that the identity scales"
        )
    if config.jsd:
        raise UserError(f"{what} does not hold with --jsd: it has no tampered counterpart")
    if config.sched == "plateau":
        raise UserError(
            f"{what} does not hold with --sched plateau: its bounds are one rate for all "
            "groups, and it may listen to a loss that the identity changes; choose another"
        )


def _check_dali(config: Config) -> None:
    """Refuse what DALI's recipe, random resized crop and flips, does not hold."""
    if not config.uses_dali:
        if config.dali_antialias:
            raise UserError("--dali-antialias needs --dali or --dali-gpu")
        return
    flag = "--dali-gpu" if config.dali_gpu else "--dali"
    if not config.data_dir or config.cifar or config.dataset:
        raise UserError(
            f"{flag} reads image folders: give --data_dir, without --cifar or --dataset"
        )
    if config.aa or config.aug_splits:
        name = "--aa" if config.aa else "--aug-splits"
        raise UserError(f"{flag} crops and flips only: leave {name} out, or load without DALI")
    if config.color_jitter not in (0, Config.color_jitter):
        raise UserError(
            f"{flag} has no color jitter, as published: leave --color-jitter "
            f"{config.color_jitter} out, or load without DALI"
        )
    for name in ("train_interpolation", "interpolation"):
        value = getattr(config, name)
        if value in ("box", "hamming"):
            raise UserError(
                f"--{name.replace('_', '-')} {value}: DALI has bilinear, bicubic, lanczos and "
                "nearest"
            )
