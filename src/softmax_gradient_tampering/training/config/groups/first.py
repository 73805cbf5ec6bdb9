"""The flags that people need first."""

from dataclasses import dataclass

from softmax_gradient_tampering.training.config.flag import flag


@dataclass(frozen=True, kw_only=True)
class FirstFlags:
    """The flags that people need first."""

    modify_softmax: float = flag(
        0.0,
        "alpha of the softmax gradient tampering, published from 0.05 to 0.92; 1 is the ordinary "
        "gradient, 0 the ordinary loss",
        unit="ALPHA",
    )
    data_dir: str | None = flag(
        None,
        "folder of the data, with train/CLASS/IMAGE and val/CLASS/IMAGE in it",
        unit="DIR",
        unset="scikit-learn's handwritten digits",
    )
    batch_size: int = flag(256, "images in a training batch of each process", "-b", unit="N")
    model: str | None = flag(
        None,
        "a model by timm's name, or resnet18_wobn, digits_mlp, resnet20 and the like",
        unit="NAME",
        unset="digits_mlp for the digits, resnet20 for CIFAR, else resnet18",
    )
    lr: float = flag(0.1, "learning rate, after the warm-up", unit="RATE")
    epochs: int = flag(90, "epochs to train, before --cooldown-epochs", unit="EPOCHS")
    amp: bool = flag(False, "train in mixed precision: float16 on a GPU, bfloat16 on a CPU")
    experiment: str = flag(
        "", "name of the run folder, in --output", unit="NAME", unset="time, model and image size"
    )
    resume: str = flag(
        "",
        "go on from this checkpoint; auto takes the newest of --experiment, if there is one",
        unit="FILE",
        unset="begin anew",
    )
