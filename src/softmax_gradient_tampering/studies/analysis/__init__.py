"""What the results say: statistics, verdicts, comparisons. Pure functions.

Reads and writes no file. Imports `studies.results` for the form of its input, numpy and scipy.
"""
