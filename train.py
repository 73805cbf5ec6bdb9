"""The published entry point: the same program as `sgt train`."""

from softmax_gradient_tampering.program import train_py

if __name__ == "__main__":
    train_py()
