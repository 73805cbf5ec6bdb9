"""The groups with which an ordinary training follows a tampered one, step for step."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from softmax_gradient_tampering import (
    ScaledLogits,
    equivalent_parameter_groups,
    fold_alpha,
    tamper,
    tampered_cross_entropy,
)
from tests.loss.inference import models

LR, WEIGHT_DECAY, NUM_STEPS = 0.05, 0.01, 15


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def make_net():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 12),
        nn.Tanh(),
        nn.Linear(12, 5),
    )


def decay_groups(net):
    """As the Trainer of transformers and timm group them: no decay of biases and norms."""
    flat = [p for p in net.parameters() if p.dim() < 2]
    others = [p for p in net.parameters() if p.dim() > 1]
    return [{"params": flat, "weight_decay": 0.0, "eps": 1e-3}, {"params": others, "lr": 0.02}]


OPTIMIZERS: dict[str, tuple[str, type[torch.optim.Optimizer], dict[str, Any]]] = {
    "sgd": ("sgd", torch.optim.SGD, {}),
    "momentum": ("sgd", torch.optim.SGD, {"momentum": 0.9, "dampening": 0.1}),
    "nesterov": ("sgd", torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adamw": ("adamw", torch.optim.AdamW, {"betas": (0.9, 0.98)}),
    "amsgrad": ("adamw", torch.optim.AdamW, {"amsgrad": True, "foreach": False}),
}
LOSSES = {
    "ours": (tampered_cross_entropy, lambda z, y, **k: tampered_cross_entropy(z, y, 1.0, **k)),
    "torch's": (lambda z, y, a, **k: tamper(F.cross_entropy, a)(z, y, **k), F.cross_entropy),
}


def train(net, optimizer, loss_fn):
    """The logits of every step, under a schedule that multiplies all rates."""
    generator = torch.Generator().manual_seed(1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, NUM_STEPS)
    logits = []
    for _ in range(NUM_STEPS):
        images = torch.randn(8, 1, 6, 6, generator=generator)
        labels = torch.randint(5, (8,), generator=generator)
        z = net(images)
        optimizer.zero_grad()
        loss_fn(z, labels, label_smoothing=0.1).backward()
        optimizer.step()
        schedule.step()
        logits.append(z.detach())
    return torch.stack(logits)


@pytest.mark.parametrize(
    ("name", "losses", "grouped", "alpha"),
    [
        (name, losses, (row + column) % 2 == 0, (0.25, 2.0)[(row // 2 + column) % 2])
        for row, name in enumerate(OPTIMIZERS)
        for column, losses in enumerate(LOSSES)
    ],
)
@pytest.mark.filterwarnings("ignore:alpha = 2")
def test_at_a_power_of_two_it_follows_the_tampered_training_bit_by_bit(
    name, losses, grouped, alpha
):
    kind, optimizer, options = OPTIMIZERS[name]
    tampered_loss, ordinary_loss = LOSSES[losses]
    tampered = make_net()
    ordinary = copy.deepcopy(tampered)
    plain = copy.deepcopy(tampered)
    of_tampered = decay_groups(tampered) if grouped else tampered.parameters()
    groups = equivalent_parameter_groups(
        ordinary,
        alpha,
        LR,
        WEIGHT_DECAY,
        optimizer=kind,
        groups=decay_groups(ordinary) if grouped else None,
    )
    settings = {"lr": LR, "weight_decay": WEIGHT_DECAY, **options}
    z = train(
        tampered, optimizer(of_tampered, **settings), lambda *a, **k: tampered_loss(*a, alpha, **k)
    )
    z_ordinary = train(ordinary, optimizer(groups, **options), ordinary_loss)
    assert torch.equal(z_ordinary, alpha * z)
    for ours, theirs in zip(tampered[:-1].parameters(), ordinary[:-1].parameters(), strict=True):
        assert torch.equal(ours, theirs)
    z_plain = train(plain, optimizer(plain.parameters(), **settings), ordinary_loss)
    assert (z_plain - z_ordinary).abs().max() > 0.1  # ordinary training as it is, is another one


def test_at_another_alpha_it_follows_up_to_rounding():
    tampered = make_net().double()
    ordinary = copy.deepcopy(tampered)
    groups = equivalent_parameter_groups(ordinary, 0.3, LR, WEIGHT_DECAY, "adamw")
    optimizer = torch.optim.AdamW(tampered.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    pairs = []
    for _ in range(20):
        x, y = torch.randn(8, 1, 6, 6).double(), torch.randint(5, (8,))
        pairs.append((x, y))
    control = torch.optim.AdamW(groups)
    for x, y in pairs:
        z, of_ordinary = tampered(x), ordinary(x)
        assert torch.allclose(of_ordinary, 0.3 * z, rtol=1e-9, atol=1e-11)
        for each, loss in (
            (optimizer, tampered_cross_entropy(z, y, 0.3)),
            (control, F.cross_entropy(of_ordinary, y)),
        ):
            each.zero_grad()
            loss.backward()
            each.step()


def test_the_groups_of_an_optimizer_are_taken_with_their_options():
    net = make_net()
    named = torch.optim.AdamW(net.named_parameters(), lr=0.1, weight_decay=0.2, betas=(0.8, 0.9))
    groups = equivalent_parameter_groups(net, 0.5, 9.0, 9.0, "adamw", groups=named.param_groups)
    head, body = torch.optim.AdamW(groups).param_groups
    assert {id(p) for p in head["params"]} == {id(p) for p in net[-1].parameters()}
    assert (head["lr"], head["weight_decay"], head["eps"]) == (0.05, 0.4, 1e-8)
    assert (body["lr"], body["weight_decay"], body["eps"]) == (0.1, 0.2, 0.5e-8)
    assert head["betas"] == body["betas"] == (0.8, 0.9)


def test_several_heads_and_heads_of_convolutions_and_of_zeros():
    distilled = models.Distilled()
    head, _ = equivalent_parameter_groups(
        nn.ModuleList([distilled, nn.Linear(2, 2)]), 0.5, 1.0, 0.0, "sgd", head=["0"]
    )
    assert len(head["params"]) == 4
    segmentation = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    before = segmentation[2].weight.clone()
    head, _ = equivalent_parameter_groups(segmentation, 0.5, 1.0, 0.0, "sgd")
    assert torch.equal(head["params"][0], 0.5 * before)
    zero = make_net()
    nn.init.zeros_(zero[-1].weight)
    nn.init.zeros_(zero[-1].bias)
    groups = equivalent_parameter_groups(
        zero, 0.5, 1.0, 0.0, "sgd", example_input=torch.randn(2, 1, 6, 6)
    )
    assert [len(group["params"]) for group in groups] == [2, 6]


def weight_normed():
    net = make_net()
    nn.utils.parametrizations.weight_norm(net[-1])
    return net


def refused(model, alpha=0.5, lr=0.1, weight_decay=0.0, optimizer="sgd", **options):
    """The message that refuses, with nothing changed: not a weight, and no mark."""
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises((ValueError, TypeError)) as caught:
        equivalent_parameter_groups(model, alpha, lr, weight_decay, optimizer, **options)
    assert all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))
    assert not any(hasattr(module, "equivalent_alpha") for module in model.modules())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_head_that_the_identity_does_not_hold_for_is_refused():
    instead = "train with tampered_cross_entropy at this alpha instead"
    message = refused(weight_normed())
    assert "is parametrized" in message
    assert instead in message
    assert "is shared: wte (Embedding)" in refused(models.LanguageModel(is_tied=True))
    assert "is not certain" in refused(models.HeadFirst())
    assert "head='classifier' is no module" in refused(models.HeadFirst(), head="classifier")
    capped, x = models.Capped(), torch.randn(3, models.FEATURES)
    message = refused(capped, example_input=x)
    assert "what comes after it is not linear" in message
    assert instead in message
    with pytest.raises(ValueError, match="is on the meta device: load the weights first"):
        equivalent_parameter_groups(nn.Linear(2, 2, device="meta"), 0.5, 0.1, 0.0, "sgd")


def test_wrong_numbers_and_optimizers_are_refused():
    net = make_net()
    assert "alpha = 0 has no equivalent" in refused(net, alpha=0)
    assert "alpha must be finite and at least 0" in refused(net, alpha=-1)
    for name in ("lr", "weight_decay"):
        for wrong in (-0.1, float("nan"), float("inf"), True, "0.1", None):
            assert f"{name} must be a finite number >= 0" in refused(net, **{name: wrong})
    for wrong in ("adam", "SGD", torch.optim.AdamW, None):
        assert 'optimizer must be "sgd" or "adamw"' in refused(net, optimizer=wrong)


def test_groups_that_are_not_those_of_a_training_are_refused():
    net = make_net()
    other = [{"params": make_net().parameters()}]
    assert "a parameter that is none of Sequential's" in refused(net, groups=other)
    named = [{"params": net.named_parameters()}]
    assert "not of (name, parameter) pairs" in refused(net, groups=named)
    negative = [{"params": net.parameters(), "lr": -1}]
    assert "lr must be a finite number" in refused(net, groups=negative)
    adam = torch.optim.Adam(net.parameters(), weight_decay=0.1)
    assert "coupled" in refused(net, optimizer="adamw", groups=adam.param_groups)
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    torch.optim.lr_scheduler.StepLR(sgd, 3)
    assert "make the schedule after" in refused(net, groups=sgd.param_groups)


def test_a_second_scaling_is_refused_and_a_folding_of_what_is_scaled():
    net = make_net()
    equivalent_parameter_groups(net, 0.5, LR, WEIGHT_DECAY, "sgd")
    before = net[-1].weight.clone()
    again = "has multiplied the initial weights of this classifier by alpha = 0.5"
    with pytest.raises(ValueError, match=again):
        equivalent_parameter_groups(copy.deepcopy(net), 0.5, LR, WEIGHT_DECAY, "sgd")
    for scale in (fold_alpha, ScaledLogits):
        with pytest.raises(ValueError, match=again):
            scale(net, 0.5)
    assert torch.equal(net[-1].weight, before)
    folded = fold_alpha(make_net(), 0.5)
    with pytest.raises(ValueError, match="already folded"):
        equivalent_parameter_groups(folded, 0.5, LR, WEIGHT_DECAY, "sgd")
