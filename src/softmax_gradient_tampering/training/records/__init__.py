"""What a run writes for people and programs, but for its checkpoints.

args.yaml, environment.json, summary.csv and result.json, and the sinks of others. Imports `files`
and of training what a launch's environment says; no torch, so that they are read at once.
"""
