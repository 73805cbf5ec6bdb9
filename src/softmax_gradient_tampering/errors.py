"""The error that a user can mend: one line, with the value, the reason and the fix."""


class UserError(Exception):
    """Ends the program with exit code 2 and its message, without a traceback."""
