"""The three lines for whoever decides, against a table that a person has read.

`python -m tests.studies.report.test_decision` writes the table anew, to be read again.
"""

import csv
import re
from pathlib import Path

import pytest

from softmax_gradient_tampering.studies.plan.plan import Arm
from softmax_gradient_tampering.studies.report.decision import decision_lines
from softmax_gradient_tampering.studies.report.verdict_sentence import verdict_sentence
from tests.studies.report.test_verdict_sentences import SITUATIONS
from tests.studies.report.test_wording import BASELINE, QUARTER, results

GOLDEN = Path(__file__).parent / "golden" / "decisions.csv"


def test_the_table_has_every_situation() -> None:
    assert list(_golden()) == list(SITUATIONS)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_lines_are_those_that_were_read(situation: str) -> None:
    assert [text for _, text in decision_lines(SITUATIONS[situation])] == _golden()[situation]


def test_an_arm_is_taken_only_where_the_first_sentence_says_that_it_helps() -> None:
    for situation, lines in _golden().items():
        sentence = verdict_sentence(SITUATIONS[situation])
        helps = re.match(r"(Tampering|[a-z]\S*) helps against", sentence) is not None
        advice = "".join(lines[:1])
        others = ("Keep", "Do not decide", "Take the settings of tuned")
        assert helps or advice.startswith(others) == bool(advice), situation
        assert not helps or advice.startswith(("Take", "Find out")), situation


def test_nothing_is_decided_where_nothing_is_compared() -> None:
    assert decision_lines(results({BASELINE: 0})) == []
    assert decision_lines(results({QUARTER: 0})) == []


def test_runs_that_are_missing_are_said() -> None:
    added = Arm("alpha-0.5", "tampered", 0.5)
    found = results({BASELINE: 0, QUARTER: 1, added: 0}, own_seeds={added: 3})
    (*_, (_, reach)) = decision_lines(found)
    assert reach.startswith("3 to 10 seeds, on one split of one data set")


def _golden() -> dict[str, list[str]]:
    with GOLDEN.open(newline="", encoding="utf-8") as file:
        return {situation: lines for situation, *lines in list(csv.reader(file))[1:]}


if __name__ == "__main__":
    with GOLDEN.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("situation", "what to do", "what it is worth", "how far it holds"))
        for name, found in SITUATIONS.items():
            writer.writerow((name, *(text for _, text in decision_lines(found))))
