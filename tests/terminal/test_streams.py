"""Output that nobody takes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LINE = "from softmax_gradient_tampering.terminal.streams import print_line\n"
TWO_LINES = LINE + "print_line('one'); print_line('two'); open('done', 'w').close()"


@pytest.mark.parametrize("what", ["full", "closed", "pipe"])
def test_a_line_that_nobody_takes_ends_no_program(what: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    output = {"full": os.open("/dev/full", os.O_WRONLY), "closed": None, "pipe": writing}[what]
    program = "import os; os.close(1)\n" * (what == "closed") + TWO_LINES
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=output, stderr=subprocess.PIPE, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert Path("done").exists()
