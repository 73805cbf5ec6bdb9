"""The flags about the model and what it sees."""

from dataclasses import dataclass

from softmax_gradient_tampering.training.config.flag import RESAMPLING, Floats, flag


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """The flags about the model and what it sees."""

    pretrained: bool = flag(False, "start from timm's pretrained weights, which it downloads")
    initial_checkpoint: str = flag(
        "", "start from the weights in this checkpoint", unit="FILE", unset="none"
    )
    num_classes: int | None = flag(None, "number of classes", unit="N", unset="counted in the data")
    gp: str | None = flag(
        None,
        "global pooling before the classifier: fast, avg, max, avgmax or avgmaxc",
        unit="NAME",
        unset="the model's",
    )
    img_size: int | None = flag(
        None, "side of the square images that the model sees", unit="PIXELS", unset="the model's"
    )
    input_size: tuple[int, int, int] | None = flag(
        None,
        "channels, height and width of the images that the model sees",
        unit="N PIXELS PIXELS",
        unset="3 and --img-size",
    )
    crop_pct: float | None = flag(
        None,
        "share of the side of a validation image that its centre crop takes",
        unit="SHARE",
        unset="the model's",
    )
    mean: Floats | None = flag(
        None,
        "mean of the pixels, of all or of each channel, with pixels from 0 to 1",
        unit="X ...",
        unset="the data's or the model's",
    )
    std: Floats | None = flag(
        None,
        "standard deviation of the pixels, likewise",
        unit="X ...",
        unset="the data's or the model's",
    )
    interpolation: str = flag(
        "",
        "how validation images are resized: nearest, bilinear, bicubic, box, hamming or lanczos",
        unit="NAME",
        unset="the model's",
        choices=("", *RESAMPLING),
    )
    drop: float = flag(
        0.0, "dropout: probability that a feature of the classifier is dropped", unit="P"
    )
    drop_path: float | None = flag(
        None,
        "stochastic depth: probability that a sample passes a residual branch by",
        unit="P",
        unset="the model's",
    )
    drop_block: float | None = flag(
        None,
        "DropBlock: probability that a region of a feature map is dropped",
        unit="P",
        unset="the model's",
    )
    bn_tf: bool = flag(
        False, "momentum 0.01 and epsilon 0.001 in batch normalisation, as TensorFlow's models have"
    )
    bn_momentum: float | None = flag(
        None,
        "weight of the current batch in the running statistics of batch normalisation",
        unit="SHARE",
        unset="the model's",
    )
    bn_eps: float | None = flag(
        None,
        "what batch normalisation adds to the variance before its root",
        unit="X",
        unset="the model's",
    )
    sync_bn: bool = flag(False, "batch normalisation over the batches of all processes; needs GPUs")
    dist_bn: str = flag(
        "",
        "the running statistics that all processes have after an epoch: reduce, their mean; "
        "broadcast, those of process 0",
        unit="NAME",
        unset="broadcast",
        choices=("", "reduce", "broadcast"),
    )
    split_bn: bool = flag(False, "batch normalisation of its own for each split of --aug-splits")
    print_model: bool = flag(False, "print the model's layers")
    zero_init_last: bool = flag(
        False, "begin with residual branches that give 0, which was not published"
    )
    channels_last: bool = flag(True, "keep images in memory pixel by pixel (channels_last)")
    torchcompile: bool = flag(False, "compile the model with torch.compile")
