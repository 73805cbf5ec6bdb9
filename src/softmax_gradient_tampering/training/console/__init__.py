"""What a person sees of a run: a bar or lines, and their fields.

Prints, and decides nothing. Imports what it prints of.
"""
