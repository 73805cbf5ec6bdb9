"""fold_alpha: the classifier times alpha, once."""

import copy

import pytest
import torch
from torch import nn

from softmax_gradient_tampering import fold_alpha
from tests.loss.cases import assert_close, assert_equal


class TimmLike(nn.Module):
    """A model whose classifier is not its last module, but is given by get_classifier()."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.body = nn.Linear(4, 4)

    def get_classifier(self):
        return self.fc

    def forward(self, x):
        return self.fc(self.body(x).relu())


MODELS = {
    "linear": lambda: nn.Linear(4, 3),
    "linear without bias": lambda: nn.Linear(4, 3, bias=False),
    "sequential": lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)),
    "nested": lambda: nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))),
    "timm-like": TimmLike,
}


@pytest.fixture(params=MODELS)
def model(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MODELS[request.param]().double()


@pytest.fixture
def features():
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("alpha", [0.25, 1, 2.0, torch.tensor(0.25)], ids=repr)
def test_logits_are_multiplied_by_alpha(model, features, alpha):
    logits = model(features)
    fold_alpha(model, alpha)
    assert_close(model(features), float(alpha) * logits)


def test_predicted_classes_stay(model, features):
    expected = model(features).argmax(1)
    assert_equal(fold_alpha(model, 0.05)(features).argmax(1), expected)


def test_only_the_classifier_is_changed(model):
    before = copy.deepcopy(model.state_dict())
    fold_alpha(model, 0.25)
    changed = [name for name, value in model.state_dict().items() if not value.equal(before[name])]
    assert 1 <= len(changed) <= 2
    assert len({name.rpartition(".")[0] for name in changed}) == 1


def test_the_argument_itself_is_returned_with_a_mark(model):
    assert fold_alpha(model, 0.25) is model
    assert model.folded_alpha == 0.25


def test_parameters_stay_trainable_leaves(model, features):
    parameters = list(model.parameters())
    fold_alpha(model, 0.25)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in parameters)
    model(features).sum().backward()


def test_a_second_folding_is_refused_and_changes_nothing(model, features):
    logits = fold_alpha(model, 0.25)(features)
    for folded in (model, copy.deepcopy(model)):
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


@pytest.mark.parametrize("alpha", [0, 0.0])
def test_alpha_zero_is_refused(model, features, alpha):
    logits = model(features)
    with pytest.raises(ValueError, match="alpha = 0 cannot be folded"):
        fold_alpha(model, alpha)
    assert_equal(model(features), logits)


@pytest.mark.parametrize(
    "model_without",
    [nn.ReLU(), nn.Conv2d(3, 4, 1), nn.Sequential(), nn.Sequential(nn.Linear(2, 2), nn.ReLU())],
    ids=lambda model: type(model).__name__,
)
def test_a_model_without_a_linear_classifier_is_refused(model_without):
    with pytest.raises(ValueError, match=r"no linear classifier found in \w+; pass its nn.Linear"):
        fold_alpha(model_without, 0.25)
    assert not hasattr(model_without, "folded_alpha")
