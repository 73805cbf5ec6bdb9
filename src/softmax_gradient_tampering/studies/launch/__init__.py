"""Cells to finished runs: claims, worker processes, torchrun, selection, search.

Imports `studies.plan`, `studies.results` and the entry of training; it never draws.
"""
