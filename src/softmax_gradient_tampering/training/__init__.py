"""Training: one configuration in, one run folder out; the entry is `run.run(config)`.

`run` and `session` tell a run from its start to its end, `recorder` writes it, `supervision` ends
it. Below them: `config` is what is asked for, `setup` makes the objects, `resume` finds where to go
on, `step` trains, `measure` evaluates, `checkpoint` and `records` keep, `console` prints,
`processes` knows the other processes. It may import loss, models, data, files and terminal, never
studies or commands.
"""
