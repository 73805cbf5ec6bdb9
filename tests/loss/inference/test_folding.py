"""fold_alpha: the logits become alpha times what they were, or nothing changes."""

import copy
import io
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from softmax_gradient_tampering import fold_alpha
from tests.loss.cases import assert_close, assert_equal
from tests.loss.inference.models import (
    CLASSES,
    FEATURES,
    WORDS,
    Capped,
    ConvHead,
    ConvNet,
    CosineLinear,
    Distilled,
    FunctionallyTied,
    HeadFirst,
    LanguageModel,
    LowRankLinear,
    NormLinear,
    SameLinear,
    TimmLike,
)

MODELS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(4, 3),
    "linear without bias": lambda: nn.Linear(4, 3, bias=False),
    "sequential": lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)),
    "sequential with dropout last": lambda: nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)),
    "nested": lambda: nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))),
    "timm-like": TimmLike,
    "two heads": Distilled,
    "list of heads": lambda: Distilled(nn.ModuleList),
    "one linear layer": ConvNet,
    "convolution": ConvHead,
    "norm and linear": lambda: TimmLike(NormLinear()),
    "linear with a forward of its own": lambda: TimmLike(SameLinear(4, 3)),
}


def make(constructor: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return constructor().double().eval()


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    return make(MODELS[request.param])


@pytest.fixture
def features() -> Tensor:
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(1)).double()


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_unchanged(model: nn.Module, before: dict[str, Tensor]) -> None:
    for name, value in model.state_dict().items():
        assert_equal(value, before[name])
    assert not any(hasattr(module, "folded_alpha") for module in model.modules())


@pytest.mark.parametrize("is_tried", [False, True], ids=["untried", "tried"])
@pytest.mark.parametrize("alpha", [0.3, 1, 2.0, torch.tensor(0.3)], ids=repr)
def test_logits_are_multiplied_by_alpha(model, features, alpha, is_tried):
    logits = model(features)
    fold_alpha(model, alpha, example_input=features if is_tried else None)
    assert_close(model(features), float(alpha) * logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("alpha", [0.25, 0.3])
def test_bitwise_at_powers_of_two_and_else_within_rounding(model, features, dtype, alpha):
    model, features = model.to(dtype), features.to(dtype)
    logits = model(features)
    fold_alpha(model, alpha, example_input=features)
    difference = model(features).double() - alpha * logits.double()
    if alpha == 0.25:
        assert not difference.any()
    # Six numbers of magnitude 1, whose products are rounded twice.
    assert difference.abs().max() <= 8 * torch.finfo(dtype).eps * alpha


def test_predicted_classes_stay(model, features):
    expected = model(features).argmax(1)
    assert_equal(fold_alpha(model, 0.05)(features).argmax(1), expected)


def test_only_the_classifier_is_changed(model):
    before = state_of(model)
    fold_alpha(model, 0.25)
    changed = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    heads = [name for name, module in model.named_modules() if hasattr(module, "folded_alpha")]
    own = {name for name in before for head in heads if head and name.startswith(f"{head}.")}
    assert changed == (own or set(before))


def test_the_argument_itself_is_returned_with_a_mark(model):
    assert fold_alpha(model, 0.25) is model
    assert model.folded_alpha == 0.25


def test_parameters_stay_trainable_leaves(model, features):
    parameters = list(model.parameters())
    fold_alpha(model, 0.25, example_input=features)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in parameters)
    model(features).sum().backward()


def test_every_module_stays_in_its_mode(features):
    model = make(ConvNet).train()
    model.norm.eval()  # frozen, as in fine-tuning
    statistics = model.norm.running_mean.clone()
    fold_alpha(model, 0.25, example_input=features)
    modes = [module.training for module in (model, model.drop, model.norm)]
    assert modes == [True, True, False]
    assert_equal(model.norm.running_mean, statistics)


def test_a_second_folding_is_refused_and_changes_nothing(model, features):
    logits = fold_alpha(model, 0.25)(features)
    for folded in (model, copy.deepcopy(model), nn.Sequential(model)):
        with pytest.raises(ValueError, match=r"alpha = 0\.25 is already folded"):
            fold_alpha(folded, 0.5)
        assert_equal(folded(features), logits)


def test_a_second_folding_by_way_of_the_model_or_its_layer_is_refused():
    model = MODELS["sequential"]()
    fold_alpha(model[-1], 0.25)
    with pytest.raises(ValueError, match="already folded"):
        fold_alpha(model, 0.25)
    model = fold_alpha(MODELS["sequential"](), 0.25)
    with pytest.raises(ValueError, match="already folded"):
        fold_alpha(model[-1], 0.25)


def test_a_saved_model_keeps_its_mark_and_a_state_dict_does_not(features):
    model = fold_alpha(make(MODELS["sequential"]), 0.25)
    stream = io.BytesIO()
    torch.save(model, stream)
    again = torch.load(io.BytesIO(stream.getvalue()), weights_only=False)  # written just here
    with pytest.raises(ValueError, match="already folded"):
        fold_alpha(again, 0.25)
    fresh = make(MODELS["sequential"])
    fresh.load_state_dict(model.state_dict())
    assert_equal(fresh(features), model(features))
    assert not hasattr(fresh, "folded_alpha")  # as documented: whoever loads it sets the mark
    fresh.folded_alpha = 0.25
    with pytest.raises(ValueError, match="already folded"):
        fold_alpha(fresh, 0.25)


@pytest.mark.parametrize("alpha", [0, 0.0])
def test_alpha_zero_is_refused(model, features, alpha):
    before = state_of(model)
    with pytest.raises(ValueError, match="alpha = 0 cannot be folded"):
        fold_alpha(model, alpha)
    assert_unchanged(model, before)


# Which layer is the head.


@pytest.mark.parametrize("head", ["out", lambda model: model.out, lambda model: [model.out]])
def test_a_head_can_be_named_or_passed(features, head):
    model = make(HeadFirst)
    logits = model(features)
    fold_alpha(model, 0.25, head=head if isinstance(head, str) else head(model))
    assert_equal(model(features), 0.25 * logits)


def test_a_head_that_is_not_certain_is_refused_unless_an_example_shows_it(features):
    model = make(HeadFirst)
    before, logits = state_of(model), model(features)
    reason = r"HeadFirst is not certain: HeadFirst has 2 linear layers; pass head=.*'out', 'fc'"
    with pytest.raises(ValueError, match=reason):
        fold_alpha(model, 0.25)
    assert_unchanged(model, before)
    fold_alpha(model, 0.25, example_input=features)
    assert_equal(model(features), 0.25 * logits)


class AfterIt(nn.Module):
    """One linear layer, and something registered after it that may be the end."""

    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.fc = nn.Linear(FEATURES, CLASSES)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.fc(x))


NO_CERTAIN_HEAD: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "no layer": (nn.ReLU, "ReLU has no linear layer"),
    "empty": (nn.Sequential, "its head is empty"),
    "sequential that ends otherwise": (
        lambda: nn.Sequential(nn.Linear(2, 2), nn.ReLU()),
        "ReLU has no linear layer",
    ),
    "something after it": (lambda: AfterIt(nn.Softmax(-1)), "Softmax is registered after its"),
    "functionally tied": (FunctionallyTied, "may be multiplied by Embedding"),
    "no classes": (lambda: TimmLike(nn.Identity()), "Identity has no linear layer"),
    "no module": (lambda: TimmLike(lambda x: x), "its head is given as a function"),
}


@pytest.mark.parametrize("name", NO_CERTAIN_HEAD)
def test_a_model_without_a_certain_head_is_refused(name):
    constructor, reason = NO_CERTAIN_HEAD[name]
    model = constructor()
    before = state_of(model)
    with pytest.raises(ValueError, match=f"{reason}.*; pass head=.* or example_input="):
        fold_alpha(model, 0.25)
    assert_unchanged(model, before)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (
            "classifier",
            r"head='classifier' is no module of HeadFirst; its last layers: 'out', 'fc'",
        ),
        (nn.Linear(4, 3), r"head is a Linear that is not part of HeadFirst"),
    ],
    ids=["name", "module"],
)
def test_a_head_of_another_model_is_refused(head, message):
    with pytest.raises(ValueError, match=message):
        fold_alpha(make(HeadFirst), 0.25, head=head)


# What a multiplication would not do, or do more than is wanted.


def shared_bias() -> nn.Module:
    model = HeadFirst()
    model.bias = model.out.bias
    return model


def part_of_a_flat_parameter() -> nn.Module:
    model = HeadFirst()
    model.flat = nn.Parameter(torch.randn(100))
    model.out.weight = nn.Parameter(model.flat.detach()[8:20].view(3, 4))
    return model


def quantized() -> nn.Module:
    model = HeadFirst()
    model.out.weight = nn.Parameter(torch.ones(3, 4, dtype=torch.int8), requires_grad=False)
    return model


def with_head(change: Callable[[nn.Linear], object]) -> Callable[[], nn.Module]:
    def construct() -> nn.Module:
        model = HeadFirst()
        change(model.out)
        return model

    return construct


UNSUITABLE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "parametrization": (with_head(parametrizations.orthogonal), "is parametrized"),
    "parametrized bias": (
        with_head(lambda layer: parametrizations.weight_norm(layer, "bias")),
        "is parametrized",
    ),
    "weight norm": (with_head(parametrizations.weight_norm), "is parametrized"),
    "old weight norm": (with_head(torch.nn.utils.weight_norm), "is parametrized"),
    "old spectral norm": (with_head(torch.nn.utils.spectral_norm), "is parametrized"),
    "pruned": (with_head(lambda layer: prune.l1_unstructured(layer, "weight", 2)), "parametrized"),
    "low rank": (lambda: TimmLike(LowRankLinear(4, 3)), "is parametrized"),
    "cosine": (lambda: TimmLike(CosineLinear(4, 3, bias=False)), "do not become alpha times"),
    "shared bias": (shared_bias, "the bias of out .* is shared: a module .HeadFirst."),
    "flat": (part_of_a_flat_parameter, "the bias of out .* is shared"),
    "quantized": (quantized, "is a Parameter of torch.int8"),
    "meta": (lambda: HeadFirst().to("meta"), "is on the meta device: load the weights first"),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*spectral_norm.*:FutureWarning")
@pytest.mark.parametrize("name", UNSUITABLE)
def test_weights_that_are_not_the_heads_own_numbers_are_refused(name):
    constructor, reason = UNSUITABLE[name]
    model = constructor()
    before = state_of(model)
    with pytest.raises(ValueError, match=reason):
        fold_alpha(model, 0.25, head=None if isinstance(model, TimmLike) else "out")
    if name != "meta":
        assert_unchanged(model, before)


@pytest.mark.parametrize("by", ["model", "layer"])
def test_a_weight_shared_with_the_embedding_is_refused(by):
    model = make(lambda: LanguageModel(is_tied=True))
    before = state_of(model)
    reason = r"is shared: .*Embedding.* ScaledLogits\(model, alpha\)"
    with pytest.raises(ValueError, match=reason):
        fold_alpha(model if by == "model" else model.lm_head, 0.25)
    assert_unchanged(model, before)


def test_a_language_model_with_a_head_of_its_own_is_folded():
    model = make(lambda: LanguageModel(is_tied=False))
    words = torch.arange(WORDS)
    logits = model(words).logits
    fold_alpha(model, 0.25, example_input={"input_ids": words})
    assert_equal(model(words).logits, 0.25 * logits)


@pytest.mark.parametrize(
    ("constructor", "head"),
    [(HeadFirst, "fc"), (Capped, None), (FunctionallyTied, "project"), (FunctionallyTied, None)],
    ids=["another layer", "capped", "tied, named", "tied"],
)
def test_an_example_whose_logits_are_not_alpha_z_undoes_the_folding(constructor, head):
    model = make(constructor)
    inputs = torch.ones(2, 4).double()
    if constructor is FunctionallyTied:
        inputs = torch.arange(WORDS)
    before = state_of(model)
    with pytest.raises(ValueError, match=r"do not become alpha .* nothing has been changed"):
        fold_alpha(model, 0.92, head=head, example_input=inputs)
    assert_unchanged(model, before)


def test_an_error_of_the_model_undoes_the_folding(features):
    model, calls = make(HeadFirst), []

    def fail_at_the_second_call(*_):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    model.register_forward_pre_hook(fail_at_the_second_call)
    before = state_of(model)
    with pytest.raises(KeyboardInterrupt):
        fold_alpha(model, 0.25, head="out", example_input=features)
    assert_unchanged(model, before)


def test_logits_that_show_nothing_are_refused(features):
    model = make(HeadFirst)
    nn.init.zeros_(model.out.weight)
    nn.init.zeros_(model.out.bias)
    with pytest.raises(ValueError, match="all 0, which shows nothing"):
        fold_alpha(model, 0.25, example_input=features)


@pytest.mark.parametrize("alpha", [1e-6, 1e8])
def test_weights_that_leave_the_range_of_their_dtype_are_refused(alpha):
    model = nn.Linear(4, 3).half()
    before = state_of(model)
    with pytest.raises(ValueError, match=r"torch.float16 cannot hold the weights"):
        fold_alpha(model, alpha)
    assert_unchanged(model, before)


def test_classes_that_a_bias_of_minus_infinity_excludes_stay_excluded(features):
    model = make(MODELS["linear"])
    with torch.no_grad():
        model.bias[1] = -torch.inf
    logits = model(features)
    assert_equal(fold_alpha(model, 0.25, example_input=features)(features), 0.25 * logits)


def test_autocast_that_is_on_sees_the_new_weights(features):
    model, features = make(MODELS["sequential"]).float(), features.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(features)
        fold_alpha(model, 0.25)
        assert_equal(model(features), 0.25 * logits)


def test_a_layer_in_several_places_of_a_model_is_refused_or_tried_out():
    layer = nn.Linear(4, 4)
    model, features = nn.Sequential(layer, nn.ReLU(), layer), torch.randn(3, 4)
    before = layer.weight.clone()
    for options in ({}, {"head": "2"}, {"head": layer}):
        with pytest.raises(ValueError, match="in 2 places of Sequential: '0', '2'; pass example"):
            fold_alpha(model, 0.25, **options)
    with pytest.raises(ValueError, match="do not become alpha times"):
        fold_alpha(model, 0.25, example_input=features)
    assert_equal(layer.weight, before)
    twice = nn.ModuleDict({"head": layer, "fc": layer})
    twice.forward = layer.forward  # two names of the head, called once
    expected = 0.25 * twice(features)
    assert_equal(fold_alpha(twice, 0.25, head="fc", example_input=features)(features), expected)
