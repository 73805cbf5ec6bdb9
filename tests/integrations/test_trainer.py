"""transformers' Trainer with the tampered loss, and with the equivalent ordinary training."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from softmax_gradient_tampering import (
    TamperedTrainerLoss,
    equivalent_parameter_groups,
    fold_alpha,
)
from tests.integrations.run_page import PAGE
from tests.test_docs import blocks_of

transformers = pytest.importorskip("transformers", reason="needs the extra [integrations]")
pytest.importorskip("accelerate", reason="needs the extra [integrations]")

NUM_EXAMPLES, NUM_STEPS, WORDS, LABELS = 32, 4, 40, 10
SGD: dict[str, Any] = {"lr": 0.1, "momentum": 0.9}
Callback: Any = transformers.TrainerCallback


def image_classifier() -> nn.Module:
    config = transformers.ViTConfig(
        image_size=8,
        patch_size=4,
        num_channels=1,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=LABELS,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    return transformers.ViTForImageClassification(config)


def language_model() -> nn.Module:
    config = transformers.LlamaConfig(
        vocab_size=WORDS,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config)


def images() -> list[dict[str, Any]]:
    torch.manual_seed(1)
    labels = torch.randint(LABELS, (NUM_EXAMPLES,)).tolist()
    return [{"pixel_values": torch.randn(1, 8, 8), "labels": label} for label in labels]


def texts() -> list[dict[str, Any]]:
    """Of many lengths, so that the mean over batches is not that over tokens."""
    torch.manual_seed(1)
    examples = []
    for length in torch.randint(3, 12, (NUM_EXAMPLES,)).tolist():
        words = torch.randint(WORDS, (12,))
        ignored = torch.arange(12) >= length
        examples.append({"input_ids": words, "labels": words.masked_fill(ignored, -100)})
    return examples


KINDS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any], dict[str, Any]]] = {
    "images": (image_classifier, images, {}),
    "text": (language_model, texts, {"shift_labels": True}),
}


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        yield


def make_trainer(
    model: nn.Module,
    data: Any,
    loss_fn: Any,
    accumulation: int = 1,
    optimizer: torch.optim.Optimizer | None = None,
    kind: Any = transformers.Trainer,
    **options: Any,
) -> Any:
    """A Trainer of steps of 8 examples each; its schedule falls linearly."""
    arguments = transformers.TrainingArguments(
        "output",
        use_cpu=True,
        max_steps=NUM_STEPS,
        per_device_train_batch_size=8 // accumulation,
        gradient_accumulation_steps=accumulation,
        max_grad_norm=0.0,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        **options,
    )
    optimizer = optimizer or torch.optim.SGD(model.parameters(), **SGD)
    return kind(
        model,
        arguments,
        train_dataset=data,
        eval_dataset=data,
        compute_loss_func=loss_fn,
        optimizers=(optimizer, None),
    )


def trained(data_kind: str, loss_fn: Any, accumulation: int = 1, **options: Any) -> tuple[Any, Any]:
    """(parameters, the losses that the Trainer logs)."""
    create, data, _ = KINDS[data_kind]
    trainer = make_trainer(create(), data(), loss_fn, accumulation, **options)
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert len(losses) == NUM_STEPS
    parameters = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    return parameters, torch.tensor(losses)


# Of parameters; what they move by is near 1. The rounding of bfloat16 differs between batches.
TOLERANCES = {False: 1e-6, True: 4e-3}


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_same_training_however_the_gradient_is_accumulated(kind: str, bf16: bool) -> None:
    options = KINDS[kind][2]
    whole, losses = trained(kind, TamperedTrainerLoss(0.25, **options), bf16=bf16)
    parts, losses_of_parts = trained(kind, TamperedTrainerLoss(0.25, **options), 2, bf16=bf16)
    ordinary, _ = trained(kind, TamperedTrainerLoss(1.0, **options), 2, bf16=bf16)
    of_transformers, losses_of_theirs = trained(kind, None, 2, bf16=bf16)
    tolerance = TOLERANCES[bf16]
    assert torch.allclose(whole, parts, rtol=0, atol=tolerance)
    assert torch.allclose(losses, losses_of_parts, rtol=0, atol=10 * tolerance)
    # At alpha 1 it is what the Trainer does without it, and below it is not.
    assert torch.allclose(ordinary, of_transformers, rtol=0, atol=tolerance)
    assert (whole - ordinary).abs().max() > 5 * tolerance
    assert torch.allclose(losses[0], losses_of_theirs[0], rtol=1e-4)


@pytest.mark.parametrize("bf16", [False, True])
def test_the_pages_trainer_without_logits_trains_as_the_one_with_them(bf16: bool) -> None:
    (recipe,) = (b.text for b in blocks_of(PAGE) if "class LinearLossTrainer" in b.text)
    names: dict[str, Any] = {}
    exec(recipe.partition("torch.manual_seed")[0], names)
    kind = names["LinearLossTrainer"]
    kind.alpha = 0.25
    loss_fn = TamperedTrainerLoss(0.25, shift_labels=True)
    with_logits, losses = trained("text", loss_fn, bf16=bf16)
    for accumulation in (1, 2):
        without, losses_without = trained("text", None, accumulation, kind=kind, bf16=bf16)
        tolerance = TOLERANCES[bf16]
        assert torch.allclose(without, with_logits, rtol=0, atol=tolerance)
        assert torch.allclose(losses_without, losses, rtol=0, atol=10 * tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_gives_the_ordinary_loss(kind: str) -> None:
    create, data, options = KINDS[kind]
    model = create()
    losses = [
        make_trainer(model, data(), loss_fn).evaluate()["eval_loss"]
        for loss_fn in (TamperedTrainerLoss(0.25, **options), None)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


class Recorder(Callback):
    """The logits of one example after every step."""

    def __init__(self, example: dict[str, Any]) -> None:
        self.inputs = {name: value[None] for name, value in example.items() if name != "labels"}
        self.logits: list[torch.Tensor] = []

    @torch.no_grad()
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.logits.append(kwargs["model"](**self.inputs).logits)


OWN: dict[str, Any] = {"learning_rate": 0.02, "weight_decay": 0.05}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["sgd", "adamw", "the Trainer's own"])
def test_the_equivalent_ordinary_training_follows_it_bit_by_bit(name: str, kind: str) -> None:
    create, data, options = KINDS[kind]
    alpha, settings = 0.25, {"lr": 0.02, "weight_decay": 0.05}
    head = {"images": "classifier", "text": None}[kind]
    seen = []
    for is_equivalent in (False, True):
        model = create()
        make: Any = torch.optim.AdamW
        if name == "sgd":
            make = partial(torch.optim.SGD, momentum=0.9, nesterov=True)
        loss_fn = TamperedTrainerLoss(1.0 if is_equivalent else alpha, **options)
        trainer = make_trainer(
            model, data(), loss_fn, 2, make(model.parameters(), **settings), **OWN
        )
        groups = None
        if name == "the Trainer's own":  # which lets biases and norms not decay
            trainer.optimizer = None
            groups = trainer.create_optimizer().param_groups
            assert {group["weight_decay"] for group in groups} == {0.0, 0.05}
        if is_equivalent:
            known = "sgd" if name == "sgd" else "adamw"
            trainer.optimizer = make(
                equivalent_parameter_groups(model, alpha, 0.02, 0.05, known, head, groups=groups)
            )
        recorder = Recorder(data()[0])
        trainer.add_callback(recorder)
        trainer.train()
        seen.append(torch.cat(recorder.logits))
    tampered, ordinary = seen
    assert len(tampered) == NUM_STEPS
    assert torch.equal(ordinary, alpha * tampered)
    assert (tampered[0] - tampered[-1]).abs().max() > 0.01


def failing(run: Callable[[], Any]) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  its words are compared below
        run()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bad_input_is_one_sentence_with_the_fix_and_the_page_has_it() -> None:
    classifier, model = image_classifier(), language_model()
    headless = transformers.ViTModel(classifier.config)
    named: dict[str, Any] = {"label_names": ["labels"]}
    plain, shifted = TamperedTrainerLoss(0.5), TamperedTrainerLoss(0.5, shift_labels=True)
    unlabelled = [{"input_ids": row["input_ids"]} for row in texts()]
    classes_of_texts = [{**row, "labels": 3} for row in texts()]
    messages = [
        failing(make_trainer(headless, images(), plain).train),
        failing(make_trainer(headless, images(), plain, **named).train),
        failing(make_trainer(model, texts(), plain).train),
        failing(make_trainer(model, unlabelled, shifted).train),
        failing(make_trainer(model, classes_of_texts, shifted).train),
        failing(lambda: equivalent_parameter_groups(classifier, 0.5, 0.1, 0.0, "sgd")),
        failing(lambda: fold_alpha(fold_alpha(classifier, 0.5, head="classifier"), 0.5)),
    ]
    assert "'classifier'" in messages[5]  # the name that head= wants
    page = PAGE.read_text(encoding="utf-8")
    rows = page.partition("| mistake | message |\n|---|---|\n")[2].strip().splitlines()
    expected = [row.strip("| ").split(" | ")[1].split("...") for row in rows]
    for words in expected:
        assert any(all(part in message for part in words) for message in messages), words
    for message in messages:
        assert any(all(part in message for part in words) for words in expected), message
