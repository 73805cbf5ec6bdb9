"""The process that owns a lock: what a lock's file says of it, and whether it is still alive."""

import os
import socket
from pathlib import Path

Owner = dict[str, str | int]


def this_process() -> Owner:
    """host, process, and the namespace of its number: containers may share the host's name."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = ""
    return {"host": socket.gethostname(), "namespace": namespace, "pid": os.getpid()}


def is_dead(owner: object) -> bool:
    """Whether a lock's owner is known to be dead: a process of this machine that is no more.

    Args:
        owner: what the file of a lock holds, unchecked. Of another machine's process, or of a
            file that is just being written, nothing is known.
    """
    if not isinstance(owner, dict) or not isinstance(owner.get("pid"), int):
        return False
    here = this_process()
    if any(owner.get(name) != here[name] for name in ("host", "namespace")):
        return False
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):  # another user's, or no number of a process
        pass
    return False
