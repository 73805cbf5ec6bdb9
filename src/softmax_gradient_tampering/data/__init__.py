"""Data: names and folders become loaders with one face; order and augmentation by counter.

`order` and `loader` are the contract, `memory`, `folder` and `dali` the kinds of sets and their
loaders, `factory` chooses among them, `inspection` looks for bad files. It may import torch, timm,
numpy and what decodes images, never the loss or training.
"""
