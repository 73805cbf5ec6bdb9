"""The contract of `reference` on a CPU: compiled rows, or else torch's operations in blocks.

Imports torch, and of this package the contract's options and the reference.
"""
