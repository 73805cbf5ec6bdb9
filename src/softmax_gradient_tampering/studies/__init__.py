"""Studies: runs over alpha and seeds, and what they show."""
