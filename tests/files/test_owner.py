"""Whether a lock's owner is dead: said of this machine's processes alone."""

import subprocess
import sys
from typing import Any

import pytest

from softmax_gradient_tampering.files.owner import is_dead, this_process


def test_a_process_is_alive_until_it_has_ended() -> None:
    assert not is_dead(this_process())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert not is_dead(this_process() | {"pid": child.pid})
        child.communicate(b"\n")
    assert is_dead(this_process() | {"pid": child.pid})


@pytest.mark.parametrize("changed", [{"host": "elsewhere"}, {"namespace": "pid:[1]"}])
def test_nothing_is_known_of_another_machine_or_container(changed: dict[str, str]) -> None:
    gone = this_process() | {"pid": 2**22 + 1}  # above the largest process number
    assert is_dead(gone)
    assert not is_dead(gone | changed)


@pytest.mark.parametrize("content", [None, [], {}, {"pid": "1"}, this_process() | {"pid": 10**30}])
def test_nothing_is_known_of_what_is_no_owner(content: Any) -> None:
    assert not is_dead(content)
