"""--class-weights: what a file may say, and what is recorded of it."""

import json
from pathlib import Path

import pytest

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.training.config.arguments import (
    from_mapping,
    given_flags,
    load_config,
    parse_arguments,
)
from softmax_gradient_tampering.training.config.class_weights import (
    inline_class_weights,
    order_class_weights,
    parse_class_weights,
)

NAMED = {"cat": 1.0, "tree, old": 2.5, "ship": 0.0}
CLASSES = ("ship", "cat", "tree, old")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('cat,1\n"tree, old",2.5\nship,0\n', NAMED),
        ('class,weight\ncat , 1\n\n"tree, old",2.5\r\nship,0', NAMED),
        ('\N{BYTE ORDER MARK}cat,1\n"tree, old",2.5\nship,0\n', NAMED),  # as spreadsheets save it
        ("\N{BYTE ORDER MARK}0\n1\n2.5\n", [0.0, 1.0, 2.5]),
        ("0\n1\n2.5e0\n", [0.0, 1.0, 2.5]),
        ("weight\n0\n1\n2.5\n", [0.0, 1.0, 2.5]),
    ],
)
def test_a_file_is_recorded_by_what_it_holds(
    tmp_path: Path, content: str, expected: object
) -> None:
    file = tmp_path / "weights.csv"
    file.write_text(content)
    config = parse_arguments(["--class-weights", str(file)])
    assert json.loads(config.class_weights) == expected
    ordered = order_class_weights(parse_class_weights(config.class_weights), CLASSES, 3)
    assert ordered == [0.0, 1.0, 2.5]
    (tmp_path / "run.yaml").write_text(f"class_weights: {file}\n")
    assert load_config(tmp_path / "run.yaml") == config
    assert given_flags([f"--class_weights={file}"])["class_weights"] == config.class_weights
    file.unlink()  # what is recorded needs it no more
    assert from_mapping({"class_weights": config.class_weights}, "plan") == config
    assert parse_arguments(["--class-weights", config.class_weights]) == config


@pytest.mark.parametrize("value", ["", "balanced"])
def test_words_are_recorded_as_they_are(value: str) -> None:
    assert inline_class_weights(value) == value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "must hold a line for every class: NAME,WEIGHT, or WEIGHT alone"),
        ("class,weight\n", "must hold a line for every class"),
        ("cat,1\n2\n", "must hold a line for every class"),
        ("cat,1,2\n", "must hold a line for every class"),
        ("cat,much\nfrog,1\n", "the weight 'much' must be a finite number from 0"),
        ("cat,-1\nfrog,1\n", "the weight '-1' must be a finite number from 0"),
        ("nan\n1\n", "the weight 'nan' must be a finite number from 0"),
        ("inf\n1\n", "the weight 'inf' must be"),
        ("cat,1\ncat,2\n", "class 'cat' stands there twice"),
        ("0\n0\n", "all weights are 0"),
        ('"' + "x" * 2**18, "field larger than field limit"),
        ("1\n" * 2**19 + "1", "it holds more than the 1 MiB"),
    ],
)
def test_a_file_that_holds_no_weights_is_one_line(
    tmp_path: Path, content: str, message: str
) -> None:
    file = tmp_path / "weights.csv"
    file.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        parse_arguments(["--class-weights", str(file)])
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ballanced: cannot be read .No such file.*give balanced"):
        parse_arguments(["--class-weights", "ballanced"])
    with pytest.raises(UserError, match="cannot be read"):
        parse_arguments(["--class-weights", str(tmp_path)])
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        parse_arguments(["--class-weights", str(tmp_path / "binary")])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "no JSON"),
        ("[]", "no weights"),
        ('{"cat": "1"}', "the weight '1' must be a finite number"),
        ('{"cat": -1}', "the weight -1 must be a finite number"),
        ("[1, Infinity]", "the weight inf must be a finite number"),
        ("[true, 1]", "the weight True must be"),
        ("[0, 0]", "all weights are 0"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_a_recorded_value_that_was_edited_is_one_line(value: str, message: str) -> None:
    with pytest.raises(UserError, match=f"--class-weights .*{message}"):
        from_mapping({"class_weights": value}, "args.yaml")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"ship": 1, "cat": 1, "frogg": 1}, "no class 'frogg'; did you mean frog?"),
        ({"ship": 1, "cat": 1}, "no weight for class 'frog'"),
        ([1, 2], "2 weights for 3 classes"),
    ],
)
def test_weights_that_do_not_fit_the_classes_are_one_line(weights: object, message: str) -> None:
    parsed = parse_class_weights(json.dumps(weights))
    with pytest.raises(UserError, match=message):
        order_class_weights(parsed, ("ship", "cat", "frog"), 3)


def test_a_class_without_a_name_has_its_number() -> None:
    assert order_class_weights({"cat": 1, "1": 3}, ("cat",), 2) == [1, 3]
