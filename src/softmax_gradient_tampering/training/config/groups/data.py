"""The flags about data and loading."""

from dataclasses import dataclass

from softmax_gradient_tampering.training.config.flag import flag


@dataclass(frozen=True, kw_only=True)
class DataFlags:
    """The flags about data and loading."""

    dataset: str = flag(
        "", "a data set by timm's name, such as torch/cifar10", "-d", unit="NAME", unset="none"
    )
    cifar: int = flag(
        0, "10 or 100: CIFAR-10 or CIFAR-100 from its files in --data-dir; 0 is neither", unit="N"
    )
    train_split: str = flag("train", "name of the training split, or of its folder", unit="NAME")
    val_split: str = flag(
        "validation", "name of the validation split, or of its folder", unit="NAME"
    )
    holdout: float = flag(
        0.0,
        "validate on this share of the training set, drawn by the seed and not trained on; 0 "
        "takes the validation set",
        unit="SHARE",
    )
    validation_batch_size_multiplier: int = flag(
        1, "validation batches are this many times as large as --batch-size", "-vb", unit="N"
    )
    workers: int = flag(
        14,
        "processes that load images, at most as many as there are cores; 0 loads in the training "
        "process",
        "-j",
        unit="N",
    )
    batch_timeout: float = flag(
        0.0,
        "end the run, as for a lost loading process, when no batch comes for this long; 0 waits "
        "without end, and says so",
        unit="SECONDS",
    )
    save_images: bool = flag(
        False, "save the images of each batch that has a progress line, as JPEG in the run folder"
    )
    dali: bool = flag(False, "load images with NVIDIA DALI, decoding on the CPU")
    dali_gpu: bool = flag(False, "load images with NVIDIA DALI, decoding on the GPU")
    dali_antialias: bool = flag(
        False, "with DALI, resize training images with antialiasing, which was not published"
    )
    on_bad_image: str = flag(
        "stop",
        "what an image file that cannot be read does: stop ends the run; skip checks all files "
        "before the run and leaves the bad ones out",
        unit="WHAT",
        choices=("stop", "skip"),
    )
