"""docs/architecture.md names every file, and who may import whom, as it is."""

import importlib.util
import re
from pathlib import Path

import pytest

from tests.test_imports import ALLOWED

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
THIRD_PARTY = {"PIL": "Pillow", "sklearn": "scikit-learn", "nvidia": "DALI"}


def test_the_list_of_files_is_up_to_date() -> None:
    path = ROOT / "tools" / "list_modules.py"
    spec = importlib.util.spec_from_file_location("list_modules", path)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.with_list(PAGE) == PAGE, "make architecture makes it anew"


@pytest.mark.parametrize("room", sorted(set(ALLOWED) - {"__init__"}))
def test_the_table_says_what_a_room_may_import(room: str) -> None:
    row = re.search(rf"^\| `{room}` \|(.*)\|(.*)\|$", PAGE, re.MULTILINE)
    assert row is not None, f"{room} has no row"
    rooms = set(ALLOWED) & set(re.findall(r"`([a-z_]+)`", row[1]))
    others = {name.strip() for name in row[2].split(",")} - {"none"}
    allowed = {THIRD_PARTY.get(name, name) for name in ALLOWED[room]}
    assert rooms | others == allowed - {"softmax_gradient_tampering"}
