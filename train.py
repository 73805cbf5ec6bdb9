"""The published entry point: the same program as `sgt train`."""

import sys
from functools import partial

from softmax_gradient_tampering.cli import leave, run_command, train

if __name__ == "__main__":
    leave(run_command("train.py", partial(train, program="train.py"), sys.argv[1:]))
