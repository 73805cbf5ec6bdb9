"""Sets small enough to be held in memory as one array: the digits and CIFAR.

They are loaded without worker processes. Imports the contract of `data` alone, and `folder` for
CIFAR kept as image files.
"""
