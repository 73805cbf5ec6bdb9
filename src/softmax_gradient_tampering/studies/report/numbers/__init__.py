"""A report's numbers for other programs: CSV and JSON beside it, TensorBoard, Weights & Biases.

Imports `studies.analysis` and the words of the report; the last two libraries when they are asked
for.
"""
