"""The commands of `sgt`, a file each: arguments in, calls down, text out.

A command reads its command line, calls the room that does the work, and prints. `registry` lists
them. They may import every room below, what is heavy (torch, numpy and all extras) only inside the
function that needs it, so that `--help` answers at once and without extras.
"""
