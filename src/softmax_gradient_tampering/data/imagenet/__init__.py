"""ImageNet's official files, sorted into the folders of classes that training reads.

What the files are and what may be in them, and the writing of the two splits. Nothing in a file
is trusted: a name that is not ImageNet's is refused, and nothing is written outside the folder
that was asked for. Imports `data.folder`, `files`, and scipy to read the development kit.
"""
