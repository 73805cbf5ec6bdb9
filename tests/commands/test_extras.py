"""A missing library is named with the extra that brings it, whichever room imports it."""

import sys

from softmax_gradient_tampering.commands.extras import describe_missing
from tests.test_imports import ALLOWED, MODULES, imports_of

OURS = set(ALLOWED) | {"softmax_gradient_tampering"}
NOT_IN_AN_EXTRA = {"torch", "triton"}  # the base installation, and what torch brings for a GPU


def test_every_library_that_is_imported_has_an_extra() -> None:
    tops = {name.partition(".")[0] for path in MODULES for name in imports_of(path)}
    libraries = tops - OURS - NOT_IN_AN_EXTRA - set(sys.stdlib_module_names)
    assert {"safetensors", "timm", "matplotlib"} <= libraries
    for library in libraries:
        assert describe_missing(ModuleNotFoundError(name=library), ()) is not None, library
