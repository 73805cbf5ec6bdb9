"""Processes by what the system says of them."""

from pathlib import Path


def state(pid: int) -> tuple[str, int] | None:
    """The letter of a process's state and its parent; None where there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[1])


def children(pid: int) -> list[int]:
    """The child processes of a process, the oldest first, without those that have ended."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return sorted(p for p in pids if (found := state(p)) and found[1] == pid and found[0] != "Z")


def has_ended(pid: int) -> bool:
    """Whether a process has ended, though its parent may not have looked yet."""
    found = state(pid)
    return found is None or found[0] == "Z"
