"""Segment made images: discs and squares on noise, with the ordinary and the tampered loss.

Each pixel is background, disc or square; the pixels at the image's border are ignored, as unclear
ones often are. A small net of convolutions, whose head is a 1x1 convolution, is trained from the
same weights with cross-entropy and with the tampered loss. Printed are, on new images, the loss,
the accuracy of the pixels and the mean over the classes of intersection over union.

    python examples/segmentation.py                # some five seconds
    python examples/segmentation.py --alpha 0.25
"""

import argparse
import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softmax_gradient_tampering import fold_alpha, tampered_cross_entropy

SIZE, NUM_CLASSES, IGNORED, BATCH_SIZE = 32, 3, 255, 16


def make_batch(generator: torch.Generator, num_images: int) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 32, 32) and labels (N, 32, 32): a disc and a square in each."""
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    places = torch.randint(6, SIZE - 6, (num_images, 2, 2, 1, 1), generator=generator)
    radii = torch.randint(3, 7, (num_images, 2, 1, 1), generator=generator)
    down, right = (rows - places[:, :, 0]).abs(), (columns - places[:, :, 1]).abs()
    is_disc = (down**2 + right**2)[:, 0] <= radii[:, 0] ** 2
    is_square = torch.maximum(down, right)[:, 1] <= radii[:, 1]
    labels = torch.where(is_square, 2, is_disc.long())
    noise = torch.randn(num_images, SIZE, SIZE, generator=generator)
    images = (labels > 0).float() + 0.4 * noise
    labels[:, [0, -1]] = labels[:, :, [0, -1]] = IGNORED
    return images.unsqueeze(1), labels


def make_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 16, 5, padding=4, dilation=2),
        nn.ReLU(),
        nn.Conv2d(16, NUM_CLASSES, 1),
    )


def train(net: nn.Module, alpha: float, num_steps: int) -> None:
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    for _ in range(num_steps):
        images, labels = make_batch(generator, BATCH_SIZE)
        loss = tampered_cross_entropy(net(images), labels, alpha, ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def mean_iou(predicted: Tensor, labels: Tensor) -> float:
    """In percent; ignored pixels count nowhere."""
    counted = labels != IGNORED
    pairs = NUM_CLASSES * labels[counted] + predicted[counted]
    table = torch.bincount(pairs, minlength=NUM_CLASSES**2).reshape(NUM_CLASSES, NUM_CLASSES)
    both = table.diagonal()
    return 100 * (both / (table.sum(0) + table.sum(1) - both)).mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--alpha", type=float, default=0.5, help="the exponent (default: 0.5)")
    parser.add_argument("--steps", type=int, default=60, help="of training (default: 60)")
    args = parser.parse_args()

    torch.manual_seed(0)
    initial = make_net()
    images, labels = make_batch(torch.Generator().manual_seed(1), 64)
    print("alpha   loss of z   loss of alpha z   pixel accuracy   mean IoU")
    for alpha in (1.0, args.alpha):
        net = copy.deepcopy(initial)
        train(net, alpha, args.steps)
        with torch.no_grad():
            z = net(images)
            folded = fold_alpha(net, alpha, example_input=images[:1])(images)
        losses = [
            F.cross_entropy(each, labels, ignore_index=IGNORED).item() for each in (z, folded)
        ]
        counted, predicted = labels != IGNORED, z.argmax(1)
        accuracy = 100 * (predicted == labels)[counted].float().mean().item()
        print(
            f"{alpha:5.2f} {losses[0]:11.4f} {losses[1]:17.4f} {accuracy:16.2f} "
            f"{mean_iou(predicted, labels):10.1f}"
        )
    print(
        "\nThe second loss is that of the net with alpha folded into its head, as it would be used."
    )


if __name__ == "__main__":
    main()
