"""From a configuration to the objects of a run.

The only room of training that knows them all. Imports every room of training but those that
watch and record a run.
"""
