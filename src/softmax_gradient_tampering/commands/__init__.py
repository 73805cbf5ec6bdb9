"""The commands of `sgt`, a file each: arguments in, calls down, text out.

A command reads its command line, calls the room that does the work, and prints. It may import
every room below, what is heavy only inside the function that needs it, so that `--help` answers
at once.
"""
