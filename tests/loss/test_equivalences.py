"""Training at alpha is an ordinary training with other learning rates: three identities.

Each test trains two nets in float64, one with the tampered loss, one with torch's own and
the mapped settings, and compares logits and weights after every step. `head` is the linear
layer that gives the logits.
"""

import copy
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from softmax_gradient_tampering import tampered_cross_entropy
from tests.loss.cases import TOLERANCES, assert_close

NUM_STEPS = 60
LR, WEIGHT_DECAY = 0.05, 0.01
ALPHAS = (0.1, 0.5, 2.0)


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def scaled_copy(net, scales):
    """A copy of `net`, its parameters multiplied by `scales`, one of each parameter's name."""
    scaled = copy.deepcopy(net)
    with torch.no_grad():
        for name, parameter in scaled.named_parameters():
            parameter.mul_(scales[name])
    return scaled


def groups(net, settings):
    """Optimizer groups of one parameter each, from {name: {"lr": ..., "weight_decay": ...}}."""
    return [{"params": [parameter], **settings[name]} for name, parameter in net.named_parameters()]


def assert_same_training(tampered, ordinary, alpha, scales, label_smoothing=0.1):
    """Step both (net, optimizer); z = alpha z and w = scale w after every step."""
    generator = torch.Generator().manual_seed(1)
    start = copy.deepcopy(tampered[0].state_dict())
    for _ in range(NUM_STEPS):
        images = torch.randn(8, *tampered[0].input_shape, generator=generator).double()
        labels = torch.randint(4, (8,), generator=generator)
        logits = [net(images) for net, _ in (tampered, ordinary)]
        assert_close(logits[1], alpha * logits[0], "trajectory")
        losses = (
            tampered_cross_entropy(logits[0], labels, alpha, label_smoothing=label_smoothing),
            F.cross_entropy(logits[1], labels, label_smoothing=label_smoothing),
        )
        for loss, (_, optimizer) in zip(losses, (tampered, ordinary), strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for (name, ours), theirs in zip(
        tampered[0].named_parameters(), ordinary[0].parameters(), strict=True
    ):
        assert_close(theirs, scales[name] * ours, "trajectory")
        # Both have moved, and by far more than they are allowed to differ.
        moved = (ours - start[name]).norm() / (start[name].norm() + 1)
        assert moved > 1e4 * TOLERANCES["trajectory"][0]


class ConvNet(nn.Module):
    """Convolution, optional batch norm, ReLU, hidden layer, linear head with bias."""

    input_shape = (3, 6, 6)

    def __init__(self, norm: bool):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 3, bias=not norm),
            nn.BatchNorm2d(6) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(96, 10),
            nn.Tanh(),
        )
        self.head = nn.Linear(10, 4)

    def forward(self, images):
        return self.head(self.body(images))


class BiasFreeNet(nn.Sequential):
    """A ReLU net of `num_layers` linear layers without bias or norm."""

    input_shape = (10,)

    def __init__(self, num_layers: int):
        widths = [10] + [12] * (num_layers - 1) + [4]
        layers = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out, bias=False), nn.ReLU()]
        super().__init__(*layers[:-1])


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("norm", [False, True], ids=["plain", "batch_norm"])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_identity_a_sgd_with_momentum_is_sgd_with_two_groups(alpha, norm, nesterov):
    net = ConvNet(norm).double()
    scales, settings = {}, {}
    for name, _ in net.named_parameters():
        # head: lr * alpha and wd / alpha; everything else: lr / alpha and wd * alpha.
        factor = alpha if name.startswith("head") else 1 / alpha
        scales[name] = alpha if name.startswith("head") else 1.0
        settings[name] = {"lr": LR * factor, "weight_decay": WEIGHT_DECAY / factor}
    reference = scaled_copy(net, scales)
    momentum = {"momentum": 0.9, "nesterov": nesterov}
    tampered_sgd = torch.optim.SGD(net.parameters(), lr=LR, weight_decay=WEIGHT_DECAY, **momentum)
    ordinary_sgd = torch.optim.SGD(groups(reference, settings), **momentum)
    assert_same_training((net, tampered_sgd), (reference, ordinary_sgd), alpha, scales)


@pytest.mark.parametrize("num_layers", [2, 3, 5])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_identity_b_a_bias_free_relu_net_is_one_group_with_other_settings(alpha, num_layers):
    net = BiasFreeNet(num_layers).double()
    share = 1 / num_layers
    scales = {name: alpha**share for name, _ in net.named_parameters()}
    reference = scaled_copy(net, scales)
    tampered_sgd = torch.optim.SGD(net.parameters(), lr=LR, momentum=0.9, weight_decay=WEIGHT_DECAY)
    ordinary_sgd = torch.optim.SGD(
        reference.parameters(),
        lr=LR * alpha ** (2 * share - 1),
        momentum=0.9,
        weight_decay=WEIGHT_DECAY * alpha ** (1 - 2 * share),
    )
    assert_same_training((net, tampered_sgd), (reference, ordinary_sgd), alpha, scales)


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "batch_norm"])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_identity_c_adamw_is_adamw_with_another_head(alpha, norm):
    net = ConvNet(norm).double()
    scales, settings = {}, {}
    for name, _ in net.named_parameters():
        # head: lr * alpha and wd / alpha; everything else as it is.
        scales[name] = alpha if name.startswith("head") else 1.0
        settings[name] = {"lr": 1e-2 * scales[name], "weight_decay": WEIGHT_DECAY / scales[name]}
    reference = scaled_copy(net, scales)
    without_eps = {"eps": 1e-30}  # the identity is that of the limit eps = 0
    tampered_adamw = torch.optim.AdamW(
        net.parameters(), lr=1e-2, weight_decay=WEIGHT_DECAY, **without_eps
    )
    ordinary_adamw = torch.optim.AdamW(groups(reference, settings), **without_eps)
    assert_same_training((net, tampered_adamw), (reference, ordinary_adamw), alpha, scales)
