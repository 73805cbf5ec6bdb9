"""What a person types and sees: command lines, progress bars, lines.

On the ground: imports rich and `errors` alone, and knows nothing of runs or studies.
"""
