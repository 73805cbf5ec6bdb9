"""The loss of hidden states and a classifier, without whole logits, for large vocabularies.

The public function, its operators and its kernel of blocks of classes. Imports torch and the
contract of `loss.kernels`.
"""
