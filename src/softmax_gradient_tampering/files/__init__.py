"""Files that a killed process, a full disk or another program cannot spoil.

Whole writes, locks, and the reading of text that is not trusted. On the ground: imports the
standard library, yaml and `errors` alone, and knows nothing of runs or studies.
"""
