"""The processes of a run and the signals to them.

The only reader of the environment variables of a launch. Imports torch and `errors`.
"""
