"""Train a tiny language model with a large vocabulary, with and without its logits.

The text is the Zen of Python, and a token is a pair of characters, so that there are 16,384 of
them. The model predicts a token from the three before it. The same training runs twice: with
`tampered_linear_cross_entropy`, which never has the logits of all tokens, and with
`tampered_cross_entropy` of these logits. Both give the same losses, up to rounding.

    python examples/tiny_language_model.py                 # some ten seconds
    python examples/tiny_language_model.py --alpha 1       # ordinary cross-entropy
"""

import argparse
import contextlib
import io
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softmax_gradient_tampering import tampered_cross_entropy, tampered_linear_cross_entropy

NUM_TOKENS = 128**2
CONTEXT, NUM_FEATURES, BATCH_SIZE = 3, 64, 128

# Of hidden states, the classifier's weight, labels and alpha.
Loss = Callable[[Tensor, Tensor, Tensor, float], Tensor]


class LanguageModel(nn.Module):
    """From tokens (batch, context) to hidden states (batch, features), not to logits."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(NUM_TOKENS, NUM_FEATURES)
        self.mixing = nn.Linear(CONTEXT * NUM_FEATURES, NUM_FEATURES)
        self.classifier = nn.Linear(NUM_FEATURES, NUM_TOKENS, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.tanh(self.mixing(self.embedding(tokens).flatten(1)))


def loss_without_logits(hidden: Tensor, weight: Tensor, labels: Tensor, alpha: float) -> Tensor:
    return tampered_linear_cross_entropy(hidden, weight, labels, alpha)


def loss_of_logits(hidden: Tensor, weight: Tensor, labels: Tensor, alpha: float) -> Tensor:
    logits = F.linear(hidden, weight)  # (batch, tokens): 8 MiB here, GiB in earnest
    return tampered_cross_entropy(logits, labels, alpha)


def read_zen() -> bytes:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        import this  # noqa: F401  prints it
    text = printed.getvalue().strip().encode("ascii")
    return text + b" " * (len(text) % 2)


def to_tokens(text: bytes) -> Tensor:
    pairs = zip(text[::2], text[1::2], strict=True)
    return torch.tensor([128 * first + second for first, second in pairs])


def to_text(tokens: Tensor) -> str:
    return "".join(chr(code) for token in tokens.tolist() for code in divmod(token, 128))


def train(
    loss_fn: Loss, text: Tensor, alpha: float, num_steps: int
) -> tuple[LanguageModel, list[float]]:
    """Train from the same weights on the same batches; returns the model and its losses."""
    torch.manual_seed(0)
    model = LanguageModel()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    windows = text.unfold(0, CONTEXT + 1, 1)
    losses = []
    for _ in range(num_steps):
        chosen = windows[torch.randint(len(windows), (BATCH_SIZE,))]
        hidden = model(chosen[:, :-1])
        loss = loss_fn(hidden, model.classifier.weight, chosen[:, -1], alpha)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return model, torch.stack(losses).tolist()


@torch.no_grad()
def continue_text(model: LanguageModel, tokens: Tensor, num_tokens: int) -> Tensor:
    """The most probable token, again and again."""
    for _ in range(num_tokens):
        logits = model.classifier(model(tokens[-CONTEXT:].unsqueeze(0)))
        tokens = torch.cat([tokens, logits.argmax(1)])
    return tokens


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--alpha", type=float, default=0.5, help="the exponent (default: 0.5)")
    parser.add_argument("--steps", type=int, default=60, help="of training (default: 60)")
    args = parser.parse_args()

    text = to_tokens(read_zen())
    model, losses = train(loss_without_logits, text, args.alpha, args.steps)
    _, expected = train(loss_of_logits, text, args.alpha, args.steps)
    print("step   without logits   with logits")
    for step in sorted({*range(0, args.steps, 10), args.steps - 1}):
        print(f"{step + 1:4d}   {losses[step]:14.4f}   {expected[step]:11.4f}")
    print(f"\nfrom its first words: {to_text(continue_text(model, text[:CONTEXT], 24))!r}")


if __name__ == "__main__":
    main()
