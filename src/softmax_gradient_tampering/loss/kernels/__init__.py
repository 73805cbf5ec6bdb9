"""Kernels: one contract, `(loss, stats) = forward(...)` and `grad = backward(...)`.

`reference` is the paper on one screen, in differentiable torch operations: the oracle of the
tests, the path of double backward and of torch.func, and the kernel of every device that has no
other. `cpu` and `triton` are the same contract, fast. Imports torch, and of the loss only what
alpha may be.
"""
