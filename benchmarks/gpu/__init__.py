"""The sections of `gpu_check.py`, a module each; every one makes rows of a table of results.

A section is a function `measure(device, deadline)` that yields rows as they are found, and begins
nothing new once `time.monotonic()` is past the deadline. On a CPU, or where `is_small` says so, it
goes the same way at small size: that tries the section's own code. May import the benchmarks'
modules, this package and, where they are installed, the peers.
"""
