"""The published entry point: the same program as `sgt train`."""

import sys
from functools import partial

from softmax_gradient_tampering.cli import leave, run_command
from softmax_gradient_tampering.commands.train import main

if __name__ == "__main__":
    leave(run_command("train.py", partial(main, program="train.py"), sys.argv[1:]))
