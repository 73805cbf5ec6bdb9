"""What has become of a study: run folders, tables and predictions, read and checked.

One reader for each file, whoever asks. Imports `studies.plan` and training's records.
"""
