"""What an evaluation says of each class: recall, and the measures that count classes alike."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from softmax_gradient_tampering.errors import as_printable
from softmax_gradient_tampering.files.untrusted import COUNT, TEXT, Form, find_fault, list_of

# A share of right answers this near to that of the largest class says little: in points, and in
# standard errors of a share of so many samples.
_NEAR_POINTS, _NEAR_ERRORS = 1.0, 2.0
_MAX_NAME = 100
_COUNTS: Form = {
    "names": list_of(TEXT),
    **dict.fromkeys(("samples", "predicted", "correct"), list_of(COUNT)),
}


@dataclass(frozen=True)
class ClassCounts:
    """How often each of C classes was there, was predicted, and was predicted rightly.

    Attributes:
        names: of the classes, each once.
        samples: of each class.
        predicted: how many samples were taken for each class.
        correct: how many of a class's samples were taken for it.
    """

    names: tuple[str, ...]
    samples: tuple[int, ...]
    predicted: tuple[int, ...]
    correct: tuple[int, ...]

    @property
    def accuracy(self) -> float:
        """The share of all samples that were predicted rightly, in percent."""
        return 100 * sum(self.correct) / sum(self.samples)

    @property
    def recalls(self) -> tuple[float, ...]:
        """The share of each class's samples that were predicted rightly, in percent.

        nan of a class without samples.
        """
        return tuple(
            100 * right / there if there else math.nan
            for right, there in zip(self.correct, self.samples, strict=True)
        )

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall of the classes that have samples, in percent."""
        return _mean([recall for recall in self.recalls if recall == recall])

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the classes that have samples or were predicted, in percent.

        F1 = 2 correct / (samples + predicted)
        """
        rows = zip(self.correct, self.samples, self.predicted, strict=True)
        return _mean([200 * right / (n + m) for right, n, m in rows if n + m])

    @property
    def lowest(self) -> int:
        """The class of the lowest recall, the first of several."""
        recalls = self.recalls
        return min(
            (number for number, recall in enumerate(recalls) if recall == recall),
            key=lambda number: recalls[number],
        )

    @property
    def largest(self) -> int:
        """The class of the most samples, the first of several."""
        return max(range(len(self.samples)), key=lambda number: self.samples[number])

    @property
    def largest_share(self) -> float:
        """The accuracy (%) of always answering the largest class."""
        return 100 * max(self.samples) / sum(self.samples)

    def is_near_largest(self, accuracy: float) -> bool:
        """Whether an accuracy (%) is hardly better than always answering the largest class."""
        share, number = self.largest_share, sum(self.samples)
        error = math.sqrt(share * (100 - share) / number)
        return accuracy - share < max(_NEAR_POINTS, _NEAR_ERRORS * error)

    def named(self, names: Sequence[str]) -> "ClassCounts":
        """The same with names; a class beyond them is named by its number, from 0."""
        given = [names[n] if n < len(names) else str(n) for n in range(len(self.samples))]
        return ClassCounts(unique_names(given), self.samples, self.predicted, self.correct)

    def recorded(self) -> dict[str, Any]:
        """The counts as result.json holds them, with the measures that follow."""
        return {
            "balanced_accuracy": self.balanced_accuracy,
            "macro_f1": self.macro_f1,
            **{name: list(values) for name, values in vars(self).items()},
            "recall": list(self.recalls),
        }


def counts_without_names(rows: Sequence[Sequence[int]]) -> ClassCounts:
    """Counts from (3, C) samples, predicted and correct ones; classes are named by number."""
    samples, predicted, correct = (tuple(map(int, row)) for row in rows)
    return ClassCounts(tuple(map(str, range(len(samples)))), samples, predicted, correct)


def unique_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names as they are shown: printable, cut, and one that stands there twice numbered.

    >>> unique_names(["crane", "ship", "crane"])
    ('crane', 'ship', 'crane (2)')
    """
    seen: set[str] = set()
    unique = []
    for number, name in enumerate(as_printable(name)[:_MAX_NAME] for name in names):
        unique.append(f"{name} ({number})" if name in seen else name)
        seen.add(unique[-1])
    return tuple(unique)


def read_counts(recorded: Any) -> ClassCounts | None:
    """The counts of a result.json, every value checked; None where it has none.

    Raises:
        ValueError: they are not what a run writes.
    """
    if recorded is None:
        return None
    fault = find_fault(recorded, _COUNTS, "classes.")
    if fault is not None:
        raise ValueError(f"result.json: {fault}")
    samples, predicted, correct = (tuple(recorded[name]) for name in list(_COUNTS)[1:])
    lengths = {len(recorded[name]) for name in _COUNTS}
    is_whole = len(lengths) == 1 and sum(samples) == sum(predicted) > 0
    if not is_whole or any(map(int.__gt__, correct, map(min, samples, predicted))):
        raise ValueError("result.json: classes: the counts do not fit each other")
    return ClassCounts(unique_names(recorded["names"]), samples, predicted, correct)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
