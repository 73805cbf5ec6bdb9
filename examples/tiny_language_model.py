"""Train a tiny language model with a large vocabulary, with and without its logits.

The text is the Zen of Python, and a token is a pair of bytes, so that there are 65,536 of them.
A recurrent net reads a window of tokens and predicts every next one; the classifier's weight is
the embedding's. The same training runs twice: with `tampered_linear_cross_entropy`, which never
has the (tokens, 65,536) logits, and with `tampered_cross_entropy` of these logits. Both give the
same losses up to rounding.

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

NUM_TOKENS = 2**16
WINDOW, BATCH_SIZE = 16, 8

# Of hidden states, the classifier's weight, labels and alpha.
Loss = Callable[[Tensor, Tensor, Tensor, float], Tensor]


class LanguageModel(nn.Module):
    """Hidden states of a sequence of tokens; `weight` makes logits of them."""

    def __init__(self, num_features: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(NUM_TOKENS, num_features)
        nn.init.normal_(self.embedding.weight, std=num_features**-0.5)
        self.recurrent = nn.GRU(num_features, num_features, batch_first=True)

    @property
    def weight(self) -> Tensor:
        return self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        hidden, _ = self.recurrent(self.embedding(tokens))
        return hidden  # (batch, window, features)


def loss_without_logits(hidden: Tensor, weight: Tensor, labels: Tensor, alpha: float) -> Tensor:
    return tampered_linear_cross_entropy(hidden, weight, labels, alpha)


def loss_of_logits(hidden: Tensor, weight: Tensor, labels: Tensor, alpha: float) -> Tensor:
    logits = F.linear(hidden, weight)  # (batch, window, tokens): 32 MiB here, GiB in earnest
    return tampered_cross_entropy(logits.flatten(0, 1), labels.flatten(), alpha)


def read_zen() -> bytes:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        import this  # noqa: F401  prints it
    text = printed.getvalue().strip().encode()
    return text + b" " * (len(text) % 2)


def to_tokens(text: bytes) -> Tensor:
    return torch.tensor([256 * first + second for first, second in zip(text[::2], text[1::2])])


def to_text(tokens: Tensor) -> str:
    data = bytes(byte for token in tokens.tolist() for byte in divmod(token, 256))
    return data.decode(errors="replace")


def train(loss_fn: Loss, text: Tensor, alpha: float, num_steps: int) -> tuple[nn.Module, Tensor]:
    """Train from the same weights on the same windows; returns the model and its losses."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LanguageModel()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    windows = text.unfold(0, WINDOW + 1, 1)
    losses = []
    for _ in range(num_steps):
        chosen = windows[torch.randint(len(windows), (BATCH_SIZE,), generator=generator)]
        hidden = model(chosen[:, :-1])
        loss = loss_fn(hidden, model.weight, chosen[:, 1:], alpha)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return model, torch.stack(losses)


@torch.no_grad()
def continue_text(model: nn.Module, tokens: Tensor, num_tokens: int) -> Tensor:
    """The most probable token, again and again."""
    for _ in range(num_tokens):
        hidden = model(tokens[-WINDOW:].unsqueeze(0))[0, -1]
        tokens = torch.cat([tokens, F.linear(hidden, model.weight).argmax().unsqueeze(0)])
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
    print(f"\nlargest difference of the losses: {(losses - expected).abs().max():.1e}")
    prompt = to_tokens(b"Beautiful is")
    print(f"continued: {to_text(continue_text(model, prompt, 24))!r}")


if __name__ == "__main__":
    main()
