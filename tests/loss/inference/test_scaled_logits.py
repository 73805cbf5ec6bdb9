"""ScaledLogits: logits times alpha around a model, whatever its output is."""

from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from softmax_gradient_tampering import ScaledLogits, fold_alpha
from tests.loss.cases import assert_equal
from tests.loss.inference.models import WORDS, LanguageModel, LanguageModelOutput

Named = namedtuple("Named", ["hidden", "logits"])
Pair = namedtuple("Pair", ["first", "second"])
Z, OTHER = torch.tensor([[1.0, 2.0, -3.0]]), torch.tensor([5.0])


class Returns(nn.Module):
    """A model that returns what it is given."""

    def forward(self, output: Any, *, flag: bool = True) -> Any:
        assert flag
        return output


# kind: (an output, where its logits are, where something else is)
OUTPUTS: dict[str, tuple[Any, Any, Any]] = {
    "tuple": ((Z, OTHER), lambda output: output[0], lambda output: output[1]),
    "list": ([Z, OTHER], lambda output: output[0], lambda output: output[1]),
    "mapping": (
        {"loss": OTHER, "logits": Z},
        lambda output: output["logits"],
        lambda output: output["loss"],
    ),
    "named tuple with logits": (
        Named(OTHER, Z),
        lambda output: output.logits,
        lambda output: output.hidden,
    ),
    "named tuple": (Pair(Z, OTHER), lambda output: output.first, lambda output: output.second),
    "transformers": (
        LanguageModelOutput(logits=Z, hidden=OTHER),
        lambda output: output.logits,
        lambda output: output["hidden"],
    ),
    "object": (
        SimpleNamespace(logits=Z, hidden=OTHER),
        lambda output: output.logits,
        lambda output: output.hidden,
    ),
}


def test_a_tensor_is_multiplied():
    assert_equal(ScaledLogits(Returns(), 0.3)(Z), 0.3 * Z)


@pytest.mark.parametrize("kind", OUTPUTS)
def test_the_logits_in_an_output_are_multiplied_and_the_rest_stays(kind):
    output, logits_in, other_in = OUTPUTS[kind]
    scaled = ScaledLogits(Returns(), 0.3)(output, flag=True)
    assert type(scaled) is type(output)
    assert_equal(logits_in(scaled), 0.3 * Z)
    assert other_in(scaled) is OTHER
    assert logits_in(output) is Z  # the model's own object


def test_a_mapping_with_attributes_agrees_with_itself():
    scaled = ScaledLogits(Returns(), 0.3)(LanguageModelOutput(logits=Z))
    assert_equal(scaled["logits"], scaled.logits)


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        (torch.tensor(1.0), "a loss"),
        ((torch.tensor(1.0), Z), "a loss"),
        ({}, "a dict"),
        ((), "a tuple"),
    ],
    ids=["loss", "loss first", "dict", "tuple"],
)
def test_an_output_without_logits_is_refused(output, kind):
    with pytest.raises(ValueError, match=f"the model returns {kind} where its logits should be"):
        ScaledLogits(Returns(), 0.25)(output)


def test_it_does_for_a_tied_model_what_folding_does_for_another():
    torch.manual_seed(0)
    tied, untied = LanguageModel(is_tied=True), LanguageModel(is_tied=False)
    untied.load_state_dict(tied.state_dict())
    words, before = torch.arange(WORDS), tied.state_dict()
    scaled = ScaledLogits(tied, 0.25)
    expected = fold_alpha(untied, 0.25, example_input=words)(words).logits
    assert_equal(scaled(input_ids=words).logits, expected)
    for name, value in tied.state_dict().items():
        assert value.data_ptr() == before[name].data_ptr()


def test_what_holds_an_alpha_takes_no_second_one():
    model = nn.Linear(2, 3)
    with pytest.raises(ValueError, match=r"alpha = 0\.25 is already folded"):
        fold_alpha(ScaledLogits(model, 0.25), 0.5)
    fold_alpha(model, 0.25)
    with pytest.raises(ValueError, match=r"alpha = 0\.25 is already folded"):
        ScaledLogits(nn.Sequential(model), 0.25)


@pytest.mark.parametrize("alpha", [0, -1.0, float("nan")])
def test_alpha_is_validated(alpha):
    with pytest.raises(ValueError, match="alpha"):
        ScaledLogits(Returns(), alpha)


def test_its_state_dict_is_the_models():
    model = nn.Linear(2, 3)
    scaled = ScaledLogits(model, 0.25)
    assert list(scaled.state_dict()) == ["model.weight", "model.bias"]
    assert "alpha=0.25" in repr(scaled)
    assert scaled.half()(torch.ones(1, 2).half()).dtype == torch.float16


def test_gradients_pass_and_it_compiles():
    model = nn.Linear(2, 3)
    scaled = torch.compile(ScaledLogits(model, 0.25), fullgraph=True, backend="aot_eager")
    x = torch.ones(1, 2, requires_grad=True)
    (grad,) = torch.autograd.grad(scaled(x).sum(), x)
    assert_equal(grad, 0.25 * model.weight.detach().sum(0, keepdim=True))
