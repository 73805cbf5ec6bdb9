"""Training: one configuration in, one run folder out; the entry is `run.run(config)`.

`config` is what is asked for, `setup` makes the objects, `step` trains, `measure` evaluates,
`checkpoint` and `records` keep, `processes` knows the other processes. It may import loss, models,
data and files, never studies or commands.
"""
