"""Older names, and flags that change nothing or are refused."""

from dataclasses import dataclass

from softmax_gradient_tampering.training.config.flag import flag


@dataclass(frozen=True, kw_only=True)
class OldFlags:
    """Older names, and flags that change nothing or are refused."""

    custom_loss: bool = flag(False, "refused: the experimental loss is not the method's")
    pin_mem: bool = flag(True, "changes nothing: memory is pinned wherever a GPU is used")
    no_prefetcher: bool = flag(False, "changes nothing: there is one kind of loader")
    use_multi_epochs_loader: bool = flag(
        False, "changes nothing: workers always live on from epoch to epoch"
    )
    epoch_repeats: float = flag(
        0.0, "refused unless 0: it belonged to streamed data sets", unit="N"
    )
    drop_connect: float | None = flag(
        None, "older name of --drop-path", unit="P", unset="--drop-path's"
    )
    torchscript: bool = flag(False, "refused: torch.jit is deprecated; use --torchcompile")
    tta: int = flag(0, "refused unless 0: the published loaders made no augmented copies", unit="N")
    apex_amp: bool = flag(False, "refused: apex is no longer maintained; use --amp")
    native_amp: bool = flag(False, "older name of --amp")
    local_rank: int = flag(
        0, "changes nothing: torchrun says in the environment which process this is", unit="N"
    )
    train_continuous: int = flag(1, "older name of --eval-every", unit="EPOCHS")
    log_wandb: bool = flag(False, "older name of --log wandb")
