"""Cells to finished runs: claims, worker processes, torchrun, selection, further seeds, search.

Imports `studies.plan`, `studies.results`, the entry of training and, for what is settled,
`studies.analysis`; it never draws.
"""
