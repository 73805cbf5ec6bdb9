"""The flags about the augmentation of training images."""

from dataclasses import dataclass

from softmax_gradient_tampering.training.config.flag import RESAMPLING, Range, flag


@dataclass(frozen=True, kw_only=True)
class AugmentationFlags:
    """The flags about the augmentation of training images."""

    no_aug: bool = flag(False, "resize and crop the centre, with no augmentation")
    scale: Range = flag(
        (0.08, 1.0), "smallest and largest share of an image's area in a random crop",
        unit="SHARE SHARE",
    )  # fmt: skip
    ratio: Range = flag(
        (3 / 4, 4 / 3), "smallest and largest width over height of a random crop", unit="X X"
    )
    hflip: float = flag(0.5, "probability of a flip from left to right", unit="P")
    vflip: float = flag(0.0, "probability of a flip upside down", unit="P")
    color_jitter: float = flag(
        0.4, "brightness, contrast and saturation change by at most this share", unit="SHARE"
    )
    aa: str | None = flag(
        None,
        "a policy of AutoAugment or RandAugment by timm's name, such as rand-m9-mstd0.5",
        unit="POLICY",
        unset="none",
    )
    aug_splits: int = flag(
        0, "copies of each batch, the first one clean: 2 or more; 0 is off", unit="N"
    )
    jsd: bool = flag(
        False, "add the Jensen-Shannon divergence between the copies of --aug-splits to the loss"
    )
    reprob: float = flag(
        0.0, "random erasing: probability that areas of an image are erased", unit="P"
    )
    remode: str = flag(
        "const",
        "what erased areas become: const (the mean), rand (one random colour) or pixel (noise)",
        unit="NAME",
        choices=("const", "rand", "pixel"),
    )
    recount: int = flag(1, "largest number of areas erased", unit="N")
    resplit: bool = flag(False, "erase nothing in the first copy of --aug-splits")
    mixup: float = flag(0.0, "mixup, with shares drawn from Beta(X, X); 0 is off", unit="X")
    cutmix: float = flag(0.0, "CutMix, with areas drawn from Beta(X, X); 0 is off", unit="X")
    cutmix_minmax: Range | None = flag(
        None,
        "CutMix, with sides drawn between these shares of the image's",
        unit="SHARE SHARE",
        unset="off",
    )
    mixup_prob: float = flag(1.0, "probability that images are mixed", unit="P")
    mixup_switch_prob: float = flag(0.5, "probability of CutMix where mixup is on too", unit="P")
    mixup_mode: str = flag(
        "batch",
        "what shares one draw: batch, all images; pair, two; elem, each its own",
        unit="NAME",
        choices=("batch", "pair", "elem"),
    )
    mixup_off_epoch: int = flag(
        0, "mix nothing from this epoch on, counted from 0; 0 is never", unit="EPOCH"
    )
    train_interpolation: str = flag(
        "random",
        "how training images are resized: random (bilinear or bicubic), nearest, bilinear, "
        "bicubic, box, hamming or lanczos",
        unit="NAME",
        choices=("random", *RESAMPLING),
    )
