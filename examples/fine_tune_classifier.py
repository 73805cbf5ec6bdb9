"""Fine-tune an image classifier: with the ordinary loss, the tampered one, and its equivalent.

A small convolutional net learns the digits 0 to 4 of scikit-learn's handwritten ones. It then gets
a new classifier and is fine-tuned to the digits 5 to 9, three times from the same weights: with
cross-entropy, with the tampered loss, and with cross-entropy at the groups that are equivalent to
it, which gives the same predictions. Printed are the accuracy, the size of the logits, and the
calibration error of softmax(z) and of softmax(alpha z), all on test images.

    python examples/fine_tune_classifier.py                # some five seconds
    python examples/fine_tune_classifier.py --alpha 0.25
"""

import argparse
import copy
from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from softmax_gradient_tampering import (
    TamperedCrossEntropyLoss,
    equivalent_parameter_groups,
    fold_alpha,
    logit_statistics,
)

LR, WEIGHT_DECAY, BATCH_SIZE, NUM_CLASSES = 0.02, 5e-4, 32, 5


class Split(NamedTuple):
    """Images (N, 1, 8, 8) and their labels from 0 on; some to train on, the others to test."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load_split(first: int) -> Split:
    """The digits from `first` to `first` + 4; every fourth image is a test image."""
    pixels, digits = map(torch.from_numpy, load_digits(return_X_y=True))
    chosen = (digits >= first) & (digits < first + NUM_CLASSES)
    images = pixels[chosen].float().reshape(-1, 1, 8, 8) / 16
    labels = digits[chosen].long() - first
    is_test = torch.arange(len(labels)) % 4 == 0
    return Split(images[~is_test], labels[~is_test], images[is_test], labels[is_test])


def make_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, NUM_CLASSES),
    )


def train(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_fn: nn.Module,
    split: Split,
    num_epochs: int,
) -> None:
    """Train on the same batches whichever the loss is."""
    generator = torch.Generator().manual_seed(0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_epochs)
    for _ in range(num_epochs):
        for batch in torch.randperm(len(split.labels), generator=generator).split(BATCH_SIZE):
            loss = loss_fn(net(split.images[batch]), split.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()


def calibration_error(z: Tensor, labels: Tensor) -> float:
    """In percent, over 10 bins of confidence."""
    confidence, predicted = torch.softmax(z, dim=1).max(1)
    number = (confidence * 10).long().clamp(max=9)
    gaps = torch.zeros(10).index_add(0, number, confidence - (predicted == labels).float())
    return 100 * gaps.abs().sum().item() / len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--alpha", type=float, default=0.5, help="the exponent (default: 0.5)")
    parser.add_argument("--epochs", type=int, default=8, help="of fine-tuning (default: 8)")
    args = parser.parse_args()

    torch.manual_seed(0)
    pretrained = make_net()
    sgd = torch.optim.SGD(pretrained.parameters(), LR, momentum=0.9, weight_decay=WEIGHT_DECAY)
    train(pretrained, sgd, nn.CrossEntropyLoss(), load_split(0), args.epochs)
    pretrained[-1] = nn.Linear(512, NUM_CLASSES)  # a new classifier, for new classes
    split = load_split(5)

    print("fine-tuned with      accuracy   logit norm   ECE of softmax(z)   of softmax(alpha z)")
    nets = {}
    for name, alpha in (("ordinary", 1.0), ("tampered", args.alpha), ("equivalent", 1.0)):
        net = nets[name] = copy.deepcopy(pretrained)
        if name == "equivalent":
            groups = equivalent_parameter_groups(net, args.alpha, LR, WEIGHT_DECAY, "sgd")
        else:
            groups = [{"params": net.parameters(), "lr": LR, "weight_decay": WEIGHT_DECAY}]
        sgd = torch.optim.SGD(groups, momentum=0.9)
        train(net, sgd, TamperedCrossEntropyLoss(alpha), split, args.epochs)
        with torch.no_grad():
            z = net(split.test_images)
        accuracy = 100 * (z.argmax(1) == split.test_labels).float().mean().item()
        errors = [calibration_error(scale * z, split.test_labels) for scale in (1.0, alpha)]
        print(
            f"{name:<18} {accuracy:10.1f} {logit_statistics(z).norm.item():12.1f} "
            f"{errors[0]:19.1f} {errors[1]:21.1f}"
        )

    tampered = fold_alpha(nets["tampered"], args.alpha, example_input=split.test_images[:1])
    with torch.no_grad():
        difference = tampered(split.test_images) - nets["equivalent"](split.test_images)
    print(
        "\nWith alpha folded into its classifier, the tampered net's logits differ from those of "
        f"the equivalent ordinary training by at most {difference.abs().max().item():.1e}."
    )


if __name__ == "__main__":
    main()
