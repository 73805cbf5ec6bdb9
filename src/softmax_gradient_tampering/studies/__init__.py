"""Studies: many runs, and what they show.

From the ground up: `plan`, what is to run; `results`, what has become of it; `analysis`, what it
says; `launch`, cells to finished runs; `report`, a page. They may import recipes, files and
terminal, and of training the configuration, the records and the one entry, never the loop.
"""
