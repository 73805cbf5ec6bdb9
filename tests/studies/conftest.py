"""What the tests of studies share: workers that are this process."""

import pytest

from softmax_gradient_tampering.studies.launch import runner
from tests.studies.studies import InProcess


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands train in this process: a worker of its own imports torch for seconds."""
    monkeypatch.setattr(runner, "WorkerPool", lambda *_: InProcess())
