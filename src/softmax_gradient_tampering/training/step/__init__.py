"""One optimizer step and what decides it: loop, optimizer, schedules, precision, finiteness.

No input or output, and no value read from the device. Imports loss, data, the configuration and
the processes.
"""
