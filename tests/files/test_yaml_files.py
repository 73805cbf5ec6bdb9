"""args.yaml, read a setting at a time, is what YAML says of the whole."""

from pathlib import Path

import pytest
import yaml

from softmax_gradient_tampering.files.yaml_files import read_args
from softmax_gradient_tampering.training.config.arguments import parse_arguments, to_mapping
from softmax_gradient_tampering.training.records.run_files import write_args


def test_what_a_run_writes(tmp_path: Path) -> None:
    words = ["--scale", "0.1", "1", "--log", "tensorboard", "wandb", "--aa", "x: y\n  z #"]
    write_args(tmp_path, to_mapping(parse_arguments([*words, "--data_dir", "a " * 99 + "\né"])))
    path = tmp_path / "args.yaml"
    assert read_args(path) == yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    "text",
    [
        "# a comment\nlr: 0.1  # too\n\nscale:\n- 0.1\n- 1\n",
        "---\nlr: 1\nlr: 2\n",
        "aa: |\n  several\n  lines\nlr: 1\n",
        'aa: "a\n  b"\nratio: [1,\n  2]\n',
    ],
)
def test_what_a_person_may_write(tmp_path: Path, text: str) -> None:
    path = tmp_path / "args.yaml"
    path.write_text(text)
    assert read_args(path) == yaml.safe_load(text)


@pytest.mark.parametrize(
    "text",
    ["", "text", "- 1", "lr: [", "lr: 2001-99-99", "lr: !!python/name:os.system", "a: 1\ntext\n"],
)
def test_what_is_no_settings_is_a_value_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "args.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"^args\.yaml cannot be read"):
        read_args(path)
