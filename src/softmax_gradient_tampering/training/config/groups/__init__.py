"""The flags of a run, a file and a dataclass for each heading of the help.

`training.config.fields` puts them together as Config. They import `flag` alone, which says what a
field says of itself.
"""
