"""The first sentence in a grid of situations, against a table that a person has read.

`python -m tests.studies.report.test_verdict_sentences` writes the table anew, to be read again.
"""

import csv
import re
from functools import partial
from pathlib import Path

import pytest

from softmax_gradient_tampering.studies.analysis.comparison import Results
from softmax_gradient_tampering.studies.plan.plan import Arm
from softmax_gradient_tampering.studies.report.verdict_sentence import verdict_sentence
from tests.studies.report.test_wording import BASELINE, HALF, QUARTER, TUNED, results

GOLDEN = Path(__file__).parent / "golden" / "verdict_sentences.csv"
SAME = Arm("equivalent-0.25", "equivalent", 0.25, follows="alpha-0.25")

SMOOTH, ADAM = Arm("smooth", "ordinary"), Arm("adam", "ordinary")
PLAIN, TAMPERED_BASELINE = Arm("plain", "baseline"), Arm("half", "baseline", 0.5)

# A study to which seeds are added.
sequence = partial(results, is_sequential=True)

SITUATIONS: dict[str, Results] = {
    "no effect, ten seeds": results({BASELINE: 0, QUARTER: 0}),
    "no effect, two arms": results({BASELINE: 0, HALF: 0.05, QUARTER: -0.1}),
    "a gain, no control": results({BASELINE: 0, QUARTER: 1}),
    "a gain below the margin": results({BASELINE: 0, QUARTER: 0.3}),
    "a gain, the largest of two arms": results({BASELINE: 0, HALF: 0.4, QUARTER: 1}),
    "a gain that the equivalent training has too": results({BASELINE: 0, QUARTER: 1, SAME: 1}),
    "a gain that the equivalent training lacks": results({BASELINE: 0, QUARTER: 1, SAME: 0}),
    "a gain that the tuned baseline has too": results({BASELINE: 0, QUARTER: 1, TUNED: 1}),
    "a gain beyond the tuned baseline": results({BASELINE: 0, QUARTER: 2, TUNED: 1}),
    "a gain, the tuned baseline is better": results({BASELINE: 0, QUARTER: 1, TUNED: 2}),
    "a gain with both controls": results({BASELINE: 0, QUARTER: 1, SAME: 1, TUNED: 1}),
    "a gain, harm elsewhere": results({BASELINE: 0, HALF: 1, QUARTER: -8}),
    "a gain, divergence elsewhere": results(
        {BASELINE: 0, HALF: 1, QUARTER: 1}, diverged={QUARTER: 3}
    ),
    "a gain of survivors, four of ten diverged": results(
        {BASELINE: 0, QUARTER: 1}, diverged={QUARTER: 4}
    ),
    "a gain, as many diverged in both arms": results(
        {BASELINE: 0, QUARTER: 1}, diverged={BASELINE: 2, QUARTER: 2}
    ),
    "a gain, more of the baseline diverged": results(
        {BASELINE: 0, QUARTER: 1}, diverged={BASELINE: 3}
    ),
    "no effect, one of ten diverged": results({BASELINE: 0, QUARTER: 0}, diverged={QUARTER: 1}),
    "harm, four of ten diverged": results({BASELINE: 0, QUARTER: -2}, diverged={QUARTER: 4}),
    "all diverged": results({BASELINE: 0, QUARTER: 0}, diverged={QUARTER: 10}),
    "a gain on five seeds": results({BASELINE: 0, QUARTER: 2}, num_seeds=5),
    "harm on five seeds": results({BASELINE: 0, QUARTER: -2}, num_seeds=5),
    "a gain on two equal pairs": results({BASELINE: 0, QUARTER: 1.5}, spread=0, num_seeds=2),
    "a gain on six equal pairs": results({BASELINE: 0, QUARTER: 1.5}, spread=0, num_seeds=6),
    "a gain of a study that has grown": sequence({BASELINE: 0, QUARTER: 1}),
    "harm in a study that has grown": sequence({BASELINE: 0, QUARTER: -1}),
    "harm": results({BASELINE: 0, QUARTER: -2}),
    "harm in all arms": results({BASELINE: 0, HALF: -1, QUARTER: -2}),
    "harm, the other arm open": results({BASELINE: 0, HALF: 0.45, QUARTER: -3}, spread=1),
    "harm, no difference of the other arm": results({BASELINE: 0, HALF: 0, QUARTER: -2}),
    "open": results({BASELINE: 0, QUARTER: 0.5}, spread=1),
    "open, two arms": results({BASELINE: 0, HALF: 0.2, QUARTER: 0.5}, spread=1),
    "one seed": results({BASELINE: 0, QUARTER: 5}, num_seeds=1),
    "sequence, a gain, the largest of two arms": sequence({BASELINE: 0, HALF: 0.4, QUARTER: 1}),
    "sequence, a gain below the margin": sequence({BASELINE: 0, QUARTER: 0.3}),
    "sequence, a gain with both controls": sequence({BASELINE: 0, QUARTER: 1, SAME: 1, TUNED: 1}),
    "sequence, a gain, the tuned baseline is open": sequence(
        {BASELINE: 0, QUARTER: 1, TUNED: 0.8}, spread=0.4
    ),
    "sequence, a gain on five seeds": sequence({BASELINE: 0, QUARTER: 2}, num_seeds=5),
    "sequence, a gain on four seeds": sequence({BASELINE: 0, QUARTER: 2}, num_seeds=4),
    "sequence, a gain of an arm that was settled first": sequence(
        {BASELINE: 0, HALF: 2, QUARTER: 0}, own_seeds={HALF: 6}
    ),
    "sequence, a gain of survivors, four of ten diverged": sequence(
        {BASELINE: 0, QUARTER: 1}, diverged={QUARTER: 4}
    ),
    "sequence, a gain, as many diverged in both arms": sequence(
        {BASELINE: 0, QUARTER: 1}, diverged={BASELINE: 2, QUARTER: 2}
    ),
    "sequence, all diverged": sequence({BASELINE: 0, QUARTER: 0}, diverged={QUARTER: 10}),
    "sequence, no effect": sequence({BASELINE: 0, QUARTER: 0}),
    "sequence, no effect, two arms": sequence({BASELINE: 0, HALF: 0.05, QUARTER: -0.1}),
    "sequence, no effect, too few seeds": sequence({BASELINE: 0, QUARTER: 0}, num_seeds=4),
    "sequence, open": sequence({BASELINE: 0, QUARTER: 0.5}, spread=1),
    "sequence, open, two arms": sequence({BASELINE: 0, HALF: 0.2, QUARTER: 0.5}, spread=1),
    "sequence, harm, the other arm open": sequence(
        {BASELINE: 0, HALF: 0.45, QUARTER: -3}, spread=1
    ),
    "sequence, a gain on five equal pairs": sequence(
        {BASELINE: 0, QUARTER: 1.5}, spread=0, num_seeds=5
    ),
    "sequence, a gain on six equal pairs": sequence(
        {BASELINE: 0, QUARTER: 1.5}, spread=0, num_seeds=6
    ),
    "sequence, six pairs without any difference": sequence(
        {BASELINE: 0, QUARTER: 0}, spread=0, num_seeds=6
    ),
    "open, the tuned baseline is better": results(
        {BASELINE: 0, HALF: 0.2, QUARTER: 0.5, TUNED: 3}, spread=1
    ),
    "harm, the tuned baseline is better by less than counts": results(
        {BASELINE: 0, QUARTER: -2, TUNED: 0.3}
    ),
    "sequence, open, the tuned baseline is better": sequence(
        {BASELINE: 0, QUARTER: 0.5, TUNED: 3}, spread=1
    ),
    "arms, a gain of the only one": results({PLAIN: 0, SMOOTH: 1}),
    "arms, a gain of two, no difference of the third": results(
        {PLAIN: 0, SMOOTH: 1, QUARTER: 0.8, ADAM: 0}
    ),
    "arms, a gain of tampering, its controls": results(
        {PLAIN: 0, SMOOTH: 0.6, QUARTER: 1, SAME: 1, TUNED: 1}
    ),
    "arms, a gain below the margin, harm elsewhere": results({PLAIN: 0, SMOOTH: 0.3, ADAM: -2}),
    "arms, a gain on five seeds": results({PLAIN: 0, SMOOTH: 2, ADAM: 0}, num_seeds=5),
    "arms, harm": results({PLAIN: 0, SMOOTH: -2}),
    "arms, harm on five seeds": results({PLAIN: 0, SMOOTH: -2}, num_seeds=5),
    "arms, no effect of one": results({PLAIN: 0, SMOOTH: 0}),
    "arms, no effect of two": results({PLAIN: 0, SMOOTH: 0.05, QUARTER: -0.1}),
    "arms, open": results({PLAIN: 0, SMOOTH: 0.5, QUARTER: 0}, spread=1),
    "arms, one seed": results({PLAIN: 0, SMOOTH: 5}, num_seeds=1),
    "arms, four of ten diverged": results({PLAIN: 0, ADAM: 1, SMOOTH: 0}, diverged={ADAM: 4}),
    "arms, all diverged": results({PLAIN: 0, ADAM: 0}, diverged={ADAM: 10}),
    "arms, no seed in common": results({PLAIN: 0, ADAM: 0}, own_seeds={ADAM: 0}),
    "arms, a gain of tampering over tampering": results({TAMPERED_BASELINE: 0, QUARTER: 1}),
    "arms, sequence, a gain": sequence({PLAIN: 0, SMOOTH: 1, QUARTER: 0.4}),
    "sequence, one seed": sequence({BASELINE: 0, QUARTER: 5}, num_seeds=1),
}


def test_the_table_has_every_situation() -> None:
    assert list(_golden()) == list(SITUATIONS)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_sentence_is_the_one_that_was_read(situation: str) -> None:
    assert verdict_sentence(SITUATIONS[situation]) == _golden()[situation]


def test_what_no_sentence_may_say() -> None:
    for situation, sentence in _golden().items():
        if "diverged" in situation and "as many" not in situation and "baseline" not in situation:
            assert "helps" not in sentence, situation
        if "diverge" in situation:
            assert "diverge" in sentence, situation
        for low, high in (part.split(" to ") for part in _intervals(sentence)):
            assert low != high, situation
        is_fixed = SITUATIONS[situation].study.is_sequential is False
        is_small = (
            "two equal" in situation or "four seeds" in situation or "five equal" in situation
        )
        if is_small or (is_fixed and "five seeds" in situation):
            assert not sentence.startswith(("Tampering helps", "Tampering hurts")), situation
        assert ("95 % interval" in sentence) <= is_fixed, situation
        assert ("confidence sequence" in sentence) <= (not is_fixed), situation
        assert "inf" not in sentence, situation
        assert "finite" not in sentence, situation


def _intervals(sentence: str) -> list[str]:
    """Of every interval in a sentence, "low to high"."""
    return re.findall(r"95 % [^−+]*([−+][\d.]+ to [−+][\d.]+)", sentence)


def _golden() -> dict[str, str]:
    with GOLDEN.open(newline="", encoding="utf-8") as file:
        return {row["situation"]: row["sentence"] for row in csv.DictReader(file)}


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    with GOLDEN.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("situation", "sentence"))
        for name, found in SITUATIONS.items():
            writer.writerow((name, verdict_sentence(found)))
