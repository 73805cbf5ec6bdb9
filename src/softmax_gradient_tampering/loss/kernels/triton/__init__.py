"""The contract of `reference` on a GPU, in Triton.

Nothing else imports Triton; this room is imported when the first logits on a GPU come. Imports
torch, Triton and the contract's options.
"""
