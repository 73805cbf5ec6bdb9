"""The module: the function with its options, moved, saved, copied and called from threads."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from torch import nn

from softmax_gradient_tampering import TamperedCrossEntropyLoss, tampered_cross_entropy
from tests.loss.cases import OPTION_CASES, Case, assert_close, assert_equal, value_and_gradient


@pytest.mark.parametrize("case", OPTION_CASES, ids=str)
def test_module_is_the_function_with_its_options(case):
    logits, target, options = case.make()
    actual = value_and_gradient(TamperedCrossEntropyLoss(0.25, **options), logits, target)
    expected = value_and_gradient(tampered_cross_entropy, logits, target, 0.25, **options)
    for of_module, of_function in zip(actual, expected, strict=True):
        assert_equal(of_module, of_function)


def test_module_takes_the_arguments_of_torchs_after_alpha():
    logits, target, options = Case(weighted=True, ignored=True, smoothing=0.1).make()
    weight, ignore_index, reduction, smoothing = options.values()
    ours = TamperedCrossEntropyLoss(
        1.0, weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=smoothing
    )
    torchs = nn.CrossEntropyLoss(
        weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=smoothing
    )
    torch.testing.assert_close(ours(logits, target), torchs(logits, target))


@pytest.mark.parametrize(
    "move",
    [
        lambda module: module.half(),
        lambda module: module.double(),
        lambda module: module.to(torch.bfloat16),
        lambda module: module.to("meta"),
    ],
    ids=["half", "double", "bfloat16", "meta"],
)
def test_weight_moves_with_the_module_as_in_torchs(move):
    ours = move(TamperedCrossEntropyLoss(0.25, torch.ones(5))).weight
    torchs = move(nn.CrossEntropyLoss(torch.ones(5))).weight
    assert (ours.dtype, ours.device) == (torchs.dtype, torchs.device)
    assert (ours.dtype, ours.device.type) != (torch.float32, "cpu")


def test_module_holds_no_parameter_and_saves_what_torchs_saves():
    for weight in (None, torch.arange(5.0)):
        ours = TamperedCrossEntropyLoss(0.25, weight)
        torchs = nn.CrossEntropyLoss(weight)
        assert list(ours.parameters()) == []
        assert ours.state_dict().keys() == torchs.state_dict().keys()
    fresh = TamperedCrossEntropyLoss(0.5, torch.zeros(5))
    fresh.load_state_dict(ours.state_dict())
    assert_equal(fresh.weight, torch.arange(5.0))
    assert fresh.alpha == 0.5
    fresh.load_state_dict(torchs.state_dict())


def test_module_is_one_of_torchs_with_its_attributes():
    weight = torch.rand(5)
    arguments = {"ignore_index": 1, "reduction": "sum", "label_smoothing": 0.1}
    ours, torchs = TamperedCrossEntropyLoss(0.25, weight, **arguments), nn.CrossEntropyLoss(weight)
    assert isinstance(ours, nn.CrossEntropyLoss)  # what libraries ask, to know that z are logits
    assert {name for name in vars(torchs) if not name.startswith("_")} <= {*vars(ours)}
    assert {name: getattr(ours, name) for name in arguments} == arguments


def test_torchscript_is_refused_in_a_sentence():
    loss_fn = TamperedCrossEntropyLoss(0.25)
    for module in (loss_fn, nn.Sequential(nn.Linear(2, 2), loss_fn)):
        with pytest.raises(
            TypeError, match=r"TorchScript cannot compile .*; use torch\.compile or"
        ):
            torch.jit.script(module)


def test_repr_names_alpha_and_the_options():
    loss_fn = TamperedCrossEntropyLoss(0.25, ignore_index=1, reduction="sum", label_smoothing=0.1)
    assert repr(loss_fn) == (
        "TamperedCrossEntropyLoss(alpha=0.25, ignore_index=1, reduction='sum', label_smoothing=0.1)"
    )


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_copy_gives_the_same_loss(duplicate):
    logits, target, options = Case(weighted=True, smoothing=0.1).make()
    loss_fn = TamperedCrossEntropyLoss(0.25, **options)
    actual = value_and_gradient(duplicate(loss_fn), logits, target)
    expected = value_and_gradient(loss_fn, logits, target)
    for of_copy, of_original in zip(actual, expected, strict=True):
        assert_equal(of_copy, of_original)


def test_a_deep_copy_has_a_weight_and_an_alpha_of_its_own():
    loss_fn = TamperedCrossEntropyLoss(0.25, torch.ones(5))
    duplicate = copy.deepcopy(loss_fn)
    duplicate.weight.zero_()
    duplicate.alpha = 0.5
    assert_equal(loss_fn.weight, torch.ones(5))
    assert loss_fn.alpha == 0.25


def test_alpha_set_anew_is_used_and_checked():
    logits, target, _ = Case().make()
    loss_fn = TamperedCrossEntropyLoss(1.0)
    loss_fn.alpha = 0.25
    _, actual = value_and_gradient(loss_fn, logits, target)
    assert_equal(actual, value_and_gradient(tampered_cross_entropy, logits, target, 0.25)[1])
    loss_fn.alpha = -1.0
    with pytest.raises(ValueError, match="at least 0, got -1"):
        loss_fn(logits, target)


@pytest.mark.parametrize("kind", [float, torch.tensor], ids=["number", "tensor"])
def test_alpha_set_anew_compiles_once_more_at_most(kind):
    torch.compiler.reset()
    logits, target, _ = Case().make()
    loss_fn = TamperedCrossEntropyLoss(1.0)
    compiled = torch.compile(loss_fn, fullgraph=True, backend="aot_eager")
    value_and_gradient(compiled, logits, target)  # a constant of the graph
    loss_fn.alpha = kind(0.5)
    value_and_gradient(compiled, logits, target)  # from now on an input
    with torch.compiler.set_stance("fail_on_recompile"):
        for step in range(12):
            loss_fn.alpha = kind(step / 16)
            _, actual = value_and_gradient(compiled, logits, target)
            _, expected = value_and_gradient(tampered_cross_entropy, logits, target, step / 16)
            assert_close(actual, expected)


def test_a_tensor_alpha_is_a_schedule_that_is_written_to():
    logits, target, _ = Case().make()
    loss_fn, alpha = TamperedCrossEntropyLoss(1.0), torch.tensor(0.5, dtype=torch.float64)
    loss_fn.alpha = alpha
    alpha.fill_(0.25)
    _, actual = value_and_gradient(loss_fn, logits, target)
    assert_equal(actual, value_and_gradient(tampered_cross_entropy, logits, target, 0.25)[1])


@pytest.mark.parametrize("case", [Case(), Case(soft=True, weighted=True)], ids=str)
def test_threads_get_the_results_of_a_single_thread(case):
    num_threads, num_calls = 2, 50
    logits, target, options = case.make()
    alphas = [0.25, 0.75]
    expected = [
        value_and_gradient(TamperedCrossEntropyLoss(alpha, **options), logits, target)
        for alpha in alphas
    ]
    barrier = Barrier(num_threads)

    def call(alpha):
        loss_fn = TamperedCrossEntropyLoss(alpha, **options)
        barrier.wait()
        return [value_and_gradient(loss_fn, logits, target) for _ in range(num_calls)]

    with ThreadPoolExecutor(num_threads) as threads:
        for results, (loss, gradient) in zip(threads.map(call, alphas), expected, strict=True):
            for actual_loss, actual_gradient in results:
                assert_equal(actual_loss, loss)
                assert_equal(actual_gradient, gradient)
