"""What is measured of a model: evaluation, predictions, calibration, norms of filters.

A model and a loader in, numbers out. Imports loss, data, `files` and the processes.
"""
