"""The equivalent training, the hold-out, the alpha schedule, the predictions."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from softmax_gradient_tampering.data.factory import SampleDataset, open_dataset
from softmax_gradient_tampering.data.holdout import hold_out, split_indices
from softmax_gradient_tampering.data.loader import Loader
from softmax_gradient_tampering.data.memory.digits import load_digits
from softmax_gradient_tampering.data.memory.loaders import MemoryEvaluationLoader, MemoryTrainLoader
from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.loss import TamperedCrossEntropyLoss
from softmax_gradient_tampering.training.config.arguments import parse_arguments
from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.processes.distributed import start_processes
from softmax_gradient_tampering.training.setup.setup import Setup, set_up
from softmax_gradient_tampering.training.step.alpha_schedule import epoch_alpha
from softmax_gradient_tampering.training.step.equivalence import scale_of_clipping
from tests.training.runs import assert_same_run, program, train

DIGITS = ("-b", 128, "--epochs", 3, "--lr", 0.05, "--output", "out", "--save-predictions")
SGD = ("--weight-decay", 0.01, "--warmup-epochs", 1, "--min-lr", 0.01)
ADAMW = ("--opt", "adamw", "--lr", 0.003, "--warmup-lr", 1e-4, "--weight-decay", 0.1)

# What the identity holds with: every one of these has passed through the schedule per group.
TRAININGS = {
    "norm": ("--model", "digits_mlp", *SGD),
    "plain": ("--model", "digits_mlp_plain", *SGD),
    "convolution with biases": ("--model", "digits_cnn_wobn", *SGD),
    "no decay": ("--model", "digits_mlp", "--weight-decay", 0),
    "momentum, steps": ("--opt", "momentum", "--sched", "step", "--decay-epochs", 1, *SGD),
    "noise, one epoch ahead": ("--lr-noise", 0.1, "--sched-order", "published", *SGD),
    "mixing": ("--mixup", 0.3, "--smoothing", 0.1, "--drop", 0.2, *SGD),
    "averaged": ("--model-ema", "--model-ema-decay", 0.9, *SGD),
    "weighted": ("--class-weights", "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]", "--smoothing", 0.1, *SGD),
    "accumulated, bfloat16": ("--grad-accum-steps", 2, "--amp-dtype", "bfloat16", *SGD),
    "adaptive clipping": ("--clip-grad", 0.05, "--clip-mode", "agc", *SGD),
    "adaptive clipping, adamw": ("--clip-grad", 0.05, "--clip-mode", "agc", *ADAMW),
    "adamw": ("--model", "digits_mlp", *ADAMW),
    "adamw, large eps": ("--model", "digits_cnn_wobn", *ADAMW, "--opt-eps", 1e-3),
}


def predictions(experiment: str, *words: str | float) -> tuple[np.ndarray, np.ndarray]:
    """(logits, labels) that a run of the digits ends with."""
    result = train(*DIGITS, *words, "--experiment", experiment)
    assert result.folder is not None
    with np.load(result.folder / "predictions.npz") as file:
        return file["logits"], file["labels"]


# Every training at one alpha; the other one is in the slow tests.
ALPHAS = (0.25, 2.0)
AT_ALPHAS = [
    pytest.param(training, alpha, marks=() if number % 2 == which else pytest.mark.slow)
    for number, training in enumerate(TRAININGS)
    for which, alpha in enumerate(ALPHAS)
]


@pytest.mark.parametrize(("training", "alpha"), AT_ALPHAS)
def test_at_a_power_of_two_the_equivalent_training_agrees_bit_by_bit(
    training: str, alpha: float
) -> None:
    words = TRAININGS[training]
    tampered, _ = predictions("tampered", *words, "--modify-softmax", alpha)
    ordinary, _ = predictions("ordinary", *words, "--equivalent-to", alpha)
    plain, _ = predictions("plain", *words, "--modify-softmax", 1)
    assert (ordinary == np.float32(alpha) * tampered).all()
    assert (ordinary.argmax(1) == tampered.argmax(1)).all()
    assert np.abs(plain - ordinary).max() > 0.01  # ordinary training as it is, is another one


def test_adaptive_clipping_clips_in_the_trainings_that_agree() -> None:
    words = TRAININGS["adaptive clipping"]
    clipped, _ = predictions("clipped", *words, "--modify-softmax", 0.25)
    free, _ = predictions("free", *words[4:], "--modify-softmax", 0.25)
    assert np.abs(clipped - free).max() > 0.01


def test_adaptive_clipping_of_the_classifier_too_has_no_equivalent() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    parameters = list(model.parameters())
    assert scale_of_clipping(model, 0.25, parameters[:-2]) == 0.25
    with pytest.raises(UserError, match="does not hold with --clip-mode agc for this model"):
        scale_of_clipping(model, 0.25, parameters)


# Relative to the largest logit, after 33 float32 steps. Single roundings are 6e-8; training
# amplifies them, and AdamW makes whole steps of gradients that are nothing but rounding.
TOLERANCES = {"plain": 1e-4, "norm": 1e-4, "adamw": 1e-2}


@pytest.mark.parametrize("training", TOLERANCES)
def test_at_other_alphas_it_agrees_up_to_rounding(training: str) -> None:
    words = TRAININGS[training]
    tampered, _ = predictions("tampered", *words, "--modify-softmax", 0.3)
    ordinary, _ = predictions("ordinary", *words, "--equivalent-to", 0.3)
    difference = np.abs(ordinary - 0.3 * tampered).max() / np.abs(ordinary).max()
    assert 0 < difference < TOLERANCES[training]
    assert (ordinary.argmax(1) == tampered.argmax(1)).mean() > 0.99


def test_the_equivalent_training_resumes_as_one_run() -> None:
    words = (*DIGITS, *SGD, "--equivalent-to", 0.5)
    train(*words, "--experiment", "whole")
    train(*words, "--experiment", "broken", "--max-steps", 15)
    train(*words, "--experiment", "broken", "--resume", "auto")
    assert_same_run(Path("out/broken"), Path("out/whole"))


def test_rates_and_decays_are_those_of_the_identity() -> None:
    config = Config(equivalent_to=0.25, lr=0.1, weight_decay=0.01, warmup_epochs=2, warmup_lr=0.02)
    setup = set_up(config, start_processes("cpu"))
    names = {id(p): name for name, p in setup.trainer.model.named_parameters()}
    seen = {}
    for epoch, rate in ((0, 0.02), (1, 0.06), (2, 0.1 * (1 + np.cos(np.pi * 2 / 90)) / 2)):
        setup.schedule.start_epoch(epoch)
        for group in setup.trainer.optimizer.param_groups:
            for parameter in group["params"]:
                name = names[id(parameter)]
                is_head = name.startswith("fc")
                decay = 0 if name.endswith("bias") or parameter.ndim == 1 else 0.01
                assert group["weight_decay"] == decay * (4 if is_head else 0.25)
                assert group["lr"] == pytest.approx(rate * (0.25 if is_head else 4), rel=2e-3)
                seen[name] = group
    assert set(seen) == set(names.values())


REFUSED = {
    "--clip-grad 1": "does not hold with --clip-grad at --clip-mode norm",
    "--clip-grad 1 --clip-mode value": "does not hold with --clip-grad at --clip-mode value",
    "--opt adam": "does not hold with --opt adam",
    "--sched plateau": "does not hold with --sched plateau",
    "--amp-dtype float16": "does not hold in float16",
    "--modify-softmax 0.5": "one with the ordinary cross-entropy",
    "--modify-softmax 0.5 --alpha-end 0.2 --alpha-schedule linear": "ordinary cross-entropy",
}


@pytest.mark.parametrize("words", REFUSED)
def test_the_equivalent_training_is_refused_where_the_identity_does_not_hold(words: str) -> None:
    with pytest.raises(UserError, match=REFUSED[words]):
        train("--epochs", 1, "--equivalent-to", 0.25, *words.split())
    assert not Path("output").exists()


def test_a_model_whose_logits_are_not_a_linear_layers_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from softmax_gradient_tampering.models.digits import DigitsNet

    with monkeypatch.context() as patch:
        patch.setattr(DigitsNet, "forward", lambda self, x: self.forward_head(self.body(x)).tanh())
        with pytest.raises(UserError, match="not those of one final linear layer"):
            train("--epochs", 1, "--equivalent-to", 0.25)
    with monkeypatch.context() as patch:
        patch.setattr(DigitsNet, "get_classifier", lambda self: self.body)
        with pytest.raises(UserError, match="not those of one final linear layer"):
            train("--epochs", 1, "--equivalent-to", 0.25)


def assert_predictions_are_the_results(folder: Path) -> None:
    """The logits give the accuracy and the likelihood that the run reported, sample by sample."""
    with np.load(folder / "predictions.npz") as file:
        logits, labels = file["logits"], file["labels"]
    assert (logits.dtype, logits.shape, labels.dtype) == (np.float32, (450, 10), np.int64)
    assert (labels == load_digits()[1].labels.numpy()).all()
    result = json.loads((folder / "result.json").read_text())
    accuracy = 100 * float((logits.argmax(1) == labels).mean())
    assert result["final"]["eval_top1"] == pytest.approx(accuracy)
    nll = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels))
    assert result["measurements"]["softmax(z)"]["nll"] == pytest.approx(nll.item(), rel=1e-5)


def test_predictions_are_those_of_the_final_model_in_the_order_of_the_data() -> None:
    predictions("a", "--modify-softmax", 0.25)
    assert_predictions_are_the_results(Path("out/a"))


def test_several_processes_write_one_file_in_the_same_order() -> None:
    words = ("--epochs", 1, "--output", "out", "--experiment", "a", "--save-predictions")
    done = program(*words, "--model", "digits_mlp_plain", "-b", 64, processes=2)
    assert done.returncode == 0, done.stderr
    assert_predictions_are_the_results(Path("out/a"))


def test_too_large_predictions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from softmax_gradient_tampering.training.measure import predictions

    monkeypatch.setattr(predictions, "MAX_VALUES", 4499)
    with pytest.raises(UserError, match="450 images of 10 classes are more than"):
        train("--epochs", 1, "--save-predictions")


def digits(**changes: object) -> Setup:
    config = parse_arguments([])
    return set_up(Config(**{**vars(config), **changes}), start_processes("cpu"))


def images_of(loader: Loader) -> torch.Tensor:
    assert isinstance(loader, MemoryTrainLoader | MemoryEvaluationLoader)
    return loader.data.images


def test_the_hold_out_is_a_part_of_training_and_the_same_at_every_alpha() -> None:
    whole = digits()
    split = digits(holdout=0.2, modify_softmax=0.25)
    again = digits(holdout=0.2, lr=1.0, weight_decay=0.5)
    other = digits(holdout=0.2, seed=1)
    assert (split.data.dataset.num_train, split.data.dataset.num_val) == (1078, 269)
    for one, two, is_equal in ((split, again, True), (split, other, False)):
        held = [images_of(setup.data.eval_loader) for setup in (one, two)]
        assert torch.equal(*held) == is_equal
    parts = [images_of(loader) for loader in (split.data.train_loader, split.data.eval_loader)]
    pixels = sorted(image.numpy().tobytes() for part in parts for image in part)
    assert pixels == sorted(i.numpy().tobytes() for i in images_of(whole.data.train_loader))


def test_a_hold_out_of_a_folder_reads_the_images_that_it_names(
    make_images: Callable[..., Path],
) -> None:
    root = make_images(Path("photos"), {"ant": 7, "bee": 6})
    dataset = open_dataset(str(root))
    part = hold_out(dataset, 0.3, seed=0)
    assert isinstance(dataset, SampleDataset)
    assert isinstance(part, SampleDataset)
    assert (part.num_classes, part.num_train, part.num_val) == (2, 9, 4)
    kept, held = split_indices(13, 0.3, 0)
    assert sorted(torch.cat([kept, held]).tolist()) == list(range(13))
    for taken, indices in ((part.train, kept), (part.val, held)):
        assert list(taken) == [dataset.train[index] for index in indices.tolist()]
    words = ("--data_dir", root, "--model", "resnet20", "--img-size", 32, "-b", 4, "-j", 0)
    result = train(*words, "--epochs", 1, "--seed", 0, "--holdout", 0.3, "--save-predictions")
    assert result.folder is not None
    with np.load(result.folder / "predictions.npz") as file:
        expected = [dataset.train[index][1] for index in held.tolist()]
        assert file["labels"].tolist() == expected


@pytest.mark.parametrize(("fraction", "message"), [(1e-6, "leaves a part empty"), (1.0, "below 1")])
def test_a_hold_out_of_nothing_or_all_is_refused(fraction: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        train("--epochs", 1, "--holdout", fraction)


def test_alpha_goes_from_its_start_to_its_end() -> None:
    for way, middle in (("linear", 0.625), ("cosine", 0.625)):
        config = Config(modify_softmax=1.0, alpha_schedule=way, alpha_end=0.25)
        alphas = [epoch_alpha(config, epoch, 41) for epoch in range(41)]
        assert (alphas[0], alphas[-1]) == (1.0, 0.25)
        assert alphas[20] == pytest.approx(middle)
        assert alphas == sorted(alphas, reverse=True)
    assert (
        alphas[4]
        > 0.975
        > 0.93
        > epoch_alpha(Config(modify_softmax=1.0, alpha_schedule="linear", alpha_end=0.25), 4, 41)
    )
    assert epoch_alpha(config, 0, 1) == 1.0


def test_the_loss_gets_the_epochs_alpha_in_place() -> None:
    setup = digits(modify_softmax=1.0, alpha_schedule="linear", alpha_end=0.5, epochs=3)
    loss_fn = setup.trainer.loss_fn
    assert isinstance(loss_fn, TamperedCrossEntropyLoss)
    tensor = loss_fn.alpha
    z = torch.randn(8, 10, generator=torch.Generator().manual_seed(0), requires_grad=True)
    target = torch.arange(8)
    for epoch, alpha in enumerate((1.0, 0.75, 0.5)):
        setup.alpha_schedule.start_epoch(epoch)
        (grad,) = torch.autograd.grad(loss_fn(z, target), z)
        expected = torch.nn.functional.cross_entropy(alpha * z, target) / alpha
        torch.testing.assert_close(grad, *torch.autograd.grad(expected, z))
    assert loss_fn.alpha is tensor
    assert setup.config.final_alpha == 0.5


def test_a_scheduled_run_resumes_as_one_run_and_is_none_of_the_constant_ones() -> None:
    words = (*DIGITS, "--modify-softmax", 1, "--alpha-schedule", "cosine", "--alpha-end", 0.25)
    train(*words, "--experiment", "whole")
    train(*words, "--experiment", "broken", "--max-steps", 15)
    train(*words, "--experiment", "broken", "--resume", "auto")
    assert_same_run(Path("out/broken"), Path("out/whole"))
    whole = np.load("out/whole/predictions.npz")["logits"]
    for alpha in (1, 0.25):
        constant, _ = predictions(f"constant-{alpha}", "--modify-softmax", alpha)
        assert not np.array_equal(constant, whole)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--alpha-schedule linear --alpha-end 0.2", "give both"),
        ("--alpha-schedule cosine --modify-softmax 1", "give both"),
        ("--modify-softmax 1 --alpha-end 0.5", "needs --alpha-schedule"),
        ("--modify-softmax 1 --alpha-schedule linear --alpha-end 0", "must be above 0"),
        ("--equivalent-to -1", "must be above 0"),
    ],
)
def test_half_a_schedule_is_refused(words: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        train("--epochs", 1, *words.split())
