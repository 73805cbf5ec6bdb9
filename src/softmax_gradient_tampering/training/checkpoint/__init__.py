"""Checkpoints: their files, their form, their folder, and weights out of them.

What is read is verified here before anything is made of it; no code in a file is run. Imports
torch, `files` and the configuration.
"""
