"""Folders of images that NVIDIA DALI decodes, in the order of the other loaders.

All that knows DALI is here, and DALI itself is imported when a pipeline is built. Imports the
contract of `data` and the data sets of `factory`.
"""
