"""Text is read up to a limit, whatever stands at its path."""

import os
import threading
from pathlib import Path

import pytest

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.files.text import read_record, read_text
from softmax_gradient_tampering.files.yaml_files import read_args
from softmax_gradient_tampering.training.config.arguments import load_config


def test_text_is_read_to_the_last_byte_that_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("é\r\n".encode())
    assert read_text(path, 4) == "é\r\n"
    with pytest.raises(ValueError, match="it holds more than"):
        read_text(path, 3)


def test_a_device_without_end_is_one_line() -> None:
    with pytest.raises(
        UserError, match=r"--config /dev/zero: cannot be read .*more than the 1 MiB"
    ):
        load_config(Path("/dev/zero"))


def test_what_a_program_left_is_a_regular_file(tmp_path: Path) -> None:
    """Nothing writes into the pipe: whoever waited for it would wait for ever."""
    pipe = tmp_path / "args.yaml"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, Path("/dev/zero")):
        with pytest.raises(OSError, match=r"not a regular file|[Ii]s a directory"):
            read_record(path)
    with pytest.raises(ValueError, match="not a regular file"):
        read_args(pipe)


def test_a_pipe_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=("lr: 0.5\n",))
    writer.start()
    assert load_config(path).lr == 0.5
    writer.join()
