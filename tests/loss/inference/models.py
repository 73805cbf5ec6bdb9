"""Small models of the kinds that people fold alpha into, and some in which it cannot be."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WORDS, FEATURES, CLASSES = 11, 4, 3


class TimmLike(nn.Module):
    """The classifier is not the last module, but get_classifier() returns it."""

    def __init__(self, classifier: Any = None) -> None:
        super().__init__()
        self.fc = classifier or nn.Linear(FEATURES, CLASSES)
        self.body = nn.Linear(FEATURES, FEATURES)

    def get_classifier(self) -> Any:
        return self.fc

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).relu())


class Distilled(nn.Module):
    """Two heads, averaged in evaluation; get_classifier() returns both, in a container or not."""

    def __init__(self, kind: type = tuple) -> None:
        super().__init__()
        self.head, self.head_dist = nn.Linear(FEATURES, CLASSES), nn.Linear(FEATURES, CLASSES)
        self.kind = kind

    def get_classifier(self) -> Any:
        return self.kind([self.head, self.head_dist])

    def forward(self, x: Tensor) -> Any:
        if self.training:
            return self.head(x), self.head_dist(x.relu())
        return (self.head(x) + self.head_dist(x.relu())) / 2


class HeadFirst(nn.Module):
    """The head is registered before the body, and nothing says that it is the head."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(FEATURES, CLASSES)
        self.fc = nn.Linear(FEATURES, FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.fc(x).relu())


class ConvNet(nn.Module):
    """One linear layer, the last, after convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 5, 2)
        self.norm = nn.BatchNorm1d(5)
        self.classifier = nn.Linear(5, CLASSES)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x.unsqueeze(1))).relu().mean(-1)
        return self.classifier(self.drop(x))


class ConvHead(nn.Module):
    """The classifier is a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv1d(1, 5, 2)
        self.fc = nn.Conv1d(5, CLASSES, 1)

    def get_classifier(self) -> nn.Module:
        return self.fc

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x.unsqueeze(1)).relu().mean(-1, keepdim=True)).flatten(1)


class NormLinear(nn.Module):
    """A norm and a linear layer in one."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(FEATURES)
        self.drop = nn.Dropout(0.5)
        self.linear = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.drop(self.bn(x)))


@dataclass
class LanguageModelOutput(OrderedDict[str, Any]):
    """As transformers' outputs: a mapping, and an object with attributes."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("loss", "logits", "hidden"):
            if getattr(self, name) is not None:
                self[name] = getattr(self, name)


class LanguageModel(nn.Module):
    """Words in, logits of words out; the head may share the embedding's weight."""

    def __init__(self, is_tied: bool) -> None:
        super().__init__()
        self.wte = nn.Embedding(WORDS, FEATURES)
        self.mlp = nn.Linear(FEATURES, FEATURES)
        self.lm_head = nn.Linear(FEATURES, WORDS, bias=False)
        if is_tied:
            self.lm_head.weight = self.wte.weight

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def forward(self, input_ids: Tensor) -> LanguageModelOutput:
        hidden = self.mlp(self.wte(input_ids)).tanh()
        return LanguageModelOutput(logits=self.lm_head(hidden), hidden=hidden)


class FunctionallyTied(nn.Module):
    """The embedding's weight is multiplied by in the forward pass; no layer is the head."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(WORDS, FEATURES)
        self.project = nn.Linear(FEATURES, FEATURES)

    def forward(self, words: Tensor) -> Tensor:
        return F.linear(self.project(self.emb(words)).tanh(), self.emb.weight)


class CosineLinear(nn.Linear):
    """Logits that do not depend on how long a class's weights are."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, F.normalize(self.weight, dim=1))


class SameLinear(nn.Linear):
    """A forward of its own that does what nn.Linear's does, as timm's own Linear."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class LowRankLinear(nn.Linear):
    """A linear layer with an adapter beside its weight."""

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__(num_inputs, num_outputs)
        self.lora_a = nn.Parameter(torch.randn(2, num_inputs))
        self.lora_b = nn.Parameter(torch.randn(num_outputs, 2))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x @ self.lora_a.t() @ self.lora_b.t()


class Capped(nn.Module):
    """Logits that are capped after the head."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.fc(x))
