"""Text of files that may be of any size, or no files: read up to a limit, pipes and devices too."""

import os
from pathlib import Path

MAX_SETTINGS = 2**20  # bytes of a YAML file of settings
MAX_RECORD = 2**28  # bytes of what programs write: JSON, CSV


def read_text(path: Path, max_bytes: int = MAX_RECORD, errors: str = "strict") -> str:
    """The UTF-8 text of a file, with the line ends that it has.

    Raises:
        OSError: it cannot be read.
        ValueError: it is longer than `max_bytes`, or no UTF-8 where `errors` is strict.
    """
    with path.open("rb") as file:
        # A read takes memory for all that it may return: of a small file, only what it has.
        size = os.fstat(file.fileno()).st_size
        content = file.read(min(size, max_bytes) + 1)
        if len(content) > size:  # a pipe, a device, or a file that grows
            content += file.read(max_bytes + 1 - len(content))
    if len(content) > max_bytes:
        raise ValueError(f"it holds more than the {max_bytes >> 20} MiB that are read")
    return content.decode("utf-8", errors)
