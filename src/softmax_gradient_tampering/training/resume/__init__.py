"""Where a run goes on: its folder, its checkpoint, and whether what is asked for fits it.

`run_folder` decides on a folder and opens the checkpoint in it, once; `comparison` says what is
not as it was. Imports the configuration, the checkpoints, the records and the processes.
"""
