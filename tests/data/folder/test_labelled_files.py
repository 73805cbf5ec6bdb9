"""Files kept as bytes come out as they went in."""

import os

from hypothesis import given, settings
from hypothesis import strategies as st

from softmax_gradient_tampering.data.folder.labelled_files import LabelledFiles

# Of file names: any characters but the separator, and bytes that are no UTF-8, as Python has them.
NAMES = st.text(
    st.one_of(
        st.characters(exclude_characters="/\0", exclude_categories=["Cs"]),
        st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF),
    ),
    min_size=1,
).filter(lambda name: os.fsdecode(os.fsencode(name)) == name)  # else no file has it for a name
PATHS = st.one_of(st.builds("{}/{}".format, NAMES, NAMES), st.builds("/{}".format, NAMES))
FILES = st.lists(st.tuples(PATHS, st.integers(0, 2)), max_size=8)


@settings(derandomize=True, deadline=None)
@given(files=FILES, indices=st.lists(st.integers(0, 7), max_size=9))
def test_paths_and_labels_come_back_whole_and_in_part(
    files: list[tuple[str, int]], indices: list[int]
) -> None:
    paths, labels = [path for path, _ in files], [label for _, label in files]
    kept = LabelledFiles("in", paths, labels, ("a", "b", "c"))
    files = [(path if path[0] == "/" else f"in/{path}", label) for path, label in files]
    assert list(kept) == files
    assert kept.paths == [path for path, _ in files]
    indices = [index for index in indices if index < len(files)]
    part = kept.take(indices)
    assert list(part) == [files[index] for index in indices]
    assert list(part[1:]) == [files[index] for index in indices[1:]]
    assert part.classes == kept.classes
