"""Folders of images and timm's data sets, read by worker processes.

From a tree of files to labelled images, and from images to batches. Imports the contract of
`data` alone.
"""
