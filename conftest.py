"""Which modules are looked at for doctests: all that can be imported here."""

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("triton") else ["src/*/loss/kernels/triton/*"]
