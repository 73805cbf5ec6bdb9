"""The report of a study or a run: the page, its tables and words, and the files beside it.

Imports `studies.analysis` and what is below it; it never launches.
"""
