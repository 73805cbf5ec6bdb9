"""The site: `make docs` builds it with Sphinx from the Markdown pages of the repository.

The source folder is the repository's root, so that a link from a page to the README, to a
benchmark's table or to a file of code is the same on the site and in the repository.
"""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent / "src"), str(DOCS / "_extensions")]

from softmax_gradient_tampering import __version__  # noqa: E402

project = "Softmax Gradient Tampering"
copyright = "the Softmax Gradient Tampering project, Apache-2.0"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "mathml",
]
root_doc = "docs/index"
include_patterns = [
    "docs/**",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "benchmarks/README.md",
]
exclude_patterns = ["docs/_build/**", "docs/_extra/**", "docs/results/**/*.md"]
default_role = "code"  # single backticks in docstrings
nitpicky = True
# Of other packages, whose references would have to be loaded.
nitpick_ignore_regex = [
    ("py:.*", r"(torch|collections|numpy|typing)\..*"),
    ("py:class", r"softmax_gradient_tampering\..*T"),  # type variables
]

myst_heading_anchors = 4  # links to headings as GitHub writes them
myst_enable_extensions = ["dollarmath", "deflist"]

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
napoleon_use_rtype = False

html_theme = "furo"
html_math_renderer = "mathml"
html_title = project
html_extra_path = ["_extra"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
