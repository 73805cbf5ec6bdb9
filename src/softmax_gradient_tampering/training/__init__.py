"""Training: one configuration in, one run folder out; the entry is `run.run(config)`."""
