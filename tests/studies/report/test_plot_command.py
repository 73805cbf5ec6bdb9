"""`sgt plot filter-norms`."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from softmax_gradient_tampering.cli import main
from softmax_gradient_tampering.studies.report.figures.filter_norms import draw_filter_norms
from softmax_gradient_tampering.studies.results.run_files import read_filter_norms
from tests.training.runs import train


def test_the_norms_of_a_run_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--model", "digits_cnn_wobn", "--epochs", 2, "--filter-norms")
    train(*flags, "--output", tmp_path, "--experiment", "run")
    assert main(["plot", "filter-norms", str(tmp_path / "run")]) == 0
    path = tmp_path / "run" / "filter_norms.png"
    assert capsys.readouterr().out == f"Picture: {path}\n"
    with Image.open(path) as image:
        assert image.format == "PNG"
    norms = read_filter_norms(tmp_path / "run")
    panels = draw_filter_norms(norms, "run").axes
    drawn = {panel.get_title().split(":")[0]: panel for panel in panels if panel.lines}
    assert list(drawn) == [name for name in norms if name != "epochs"]
    for name, panel in drawn.items():
        filters = panel.lines[:-1]  # the last is the bound
        assert [np.asarray(line.get_ydata()).tolist() for line in filters] == norms[name].T.tolist()


def test_a_run_without_norms_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plot", "filter-norms", str(tmp_path)]) == 2
    assert "train with --filter-norms" in capsys.readouterr().err
    assert main(["plot", "filter-norms", str(tmp_path), "--output", "x.gif"]) == 2
    assert "give a name that ends in .png" in capsys.readouterr().err
