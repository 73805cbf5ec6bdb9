"""What a study consists of: arms, seeds, cells; from a request, to and from plan.json.

Imports the configuration of training and the names of recipes. Reads and writes plan.json, and
nothing else.
"""
