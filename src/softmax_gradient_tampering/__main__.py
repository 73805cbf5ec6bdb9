"""`python -m softmax_gradient_tampering`: the same program as `sgt`."""

from softmax_gradient_tampering.program import sgt

if __name__ == "__main__":
    sgt()
