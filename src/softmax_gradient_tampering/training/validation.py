"""What a configuration may not ask for: refused before anything is built or written."""

from collections.abc import Callable

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.training.config import Config

# Published flags that are refused, and why.
_REFUSED: tuple[tuple[str, str], ...] = (
    ("custom_loss", "the published experimental loss is not part of the method; leave it out"),
    ("torchscript", "torch.jit is deprecated; use --torchcompile"),
    ("apex_amp", "apex is no longer maintained; use --amp"),
    ("tta", "the published loaders made no augmented copies to average; leave it out"),
    ("epoch_repeats", "it belonged to streamed data sets; use more --epochs"),
    ("dali", "the DALI loader is not part of this version; leave it out for timm's loader"),
    ("dali_gpu", "the DALI loader is not part of this version; leave it out for timm's loader"),
)

# name: (what it must be, the test)
_Rule = tuple[str, Callable[[float], bool]]
_POSITIVE: _Rule = ("above 0", lambda value: value > 0)
_NOT_NEGATIVE: _Rule = ("at least 0", lambda value: value >= 0)
_PROBABILITY: _Rule = ("from 0 to 1", lambda value: 0 <= value <= 1)
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(
        ("batch_size", "validation_batch_size_multiplier", "grad_accum_steps", "epochs",
         "max_steps", "eval_every", "train_continuous", "log_interval", "num_classes",
         "decay_epochs", "clip_grad", "recount", "crop_pct"),
        _POSITIVE,
    ),
    **dict.fromkeys(
        ("modify_softmax", "lr", "warmup_lr", "min_lr", "weight_decay", "workers",
         "recovery_interval", "checkpoint_hist", "warmup_epochs", "cooldown_epochs",
         "start_epoch", "seed", "mixup", "cutmix", "momentum", "aug_splits"),
        _NOT_NEGATIVE,
    ),
    **dict.fromkeys(
        ("smoothing", "hflip", "vflip", "reprob", "mixup_prob", "mixup_switch_prob", "drop",
         "drop_path", "drop_connect", "drop_block", "model_ema_decay"),
        _PROBABILITY,
    ),
}  # fmt: skip


def check_config(config: Config) -> None:
    """Refuse values and combinations that cannot be run.

    Raises:
        UserError: names the flag, its value, why, and what to do.
    """
    for name, why in _REFUSED:
        if getattr(config, name):
            raise UserError(f"--{name.replace('_', '-')} is refused: {why}")
    for name, (must_be, is_right) in _RULES.items():
        value = getattr(config, name)
        if value is not None and not is_right(value):
            raise UserError(f"--{name.replace('_', '-')} {value}: must be {must_be}")
    _check_combinations(config)


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
    if config.is_mixing and config.aug_splits:
        raise UserError("--mixup and --cutmix do not go with --aug-splits; use one of the two")
    if config.split_bn and config.aug_splits < 2:
        raise UserError("--split-bn needs --aug-splits 2 or more")
    if config.is_mixing and config.batch_size < 2:
        raise UserError(f"--batch-size {config.batch_size}: mixing needs at least 2")
    if config.resume == "auto" and not config.experiment:
        raise UserError("--resume auto needs --experiment NAME, the run to go on with")
    if config.no_resume_opt and not config.resume:
        raise UserError("--no-resume-opt needs --resume")
    name = config.experiment
    if name in (".", "..") or "/" in name or not name.isprintable() or len(name.encode()) > 200:
        raise UserError(
            f"--experiment {name!r:.60}: must be a plain folder name, without / or control "
            "characters, of at most 200 bytes"
        )
