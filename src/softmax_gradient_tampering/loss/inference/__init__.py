"""A trained model's logits times alpha, in its weights or around it.

`folding` multiplies the weights and `scaled_logits` the outputs; `head` finds the layer that gives
the logits, `weights` says whether it may be multiplied, `trial` whether that does what it should.
Imports torch and, of the loss, only what alpha may be.
"""
