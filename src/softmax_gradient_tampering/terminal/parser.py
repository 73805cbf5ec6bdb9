"""Command lines: a mistake is one line that names the nearest right word."""

import argparse
import difflib
from collections.abc import Iterable
from typing import Any, NoReturn

from softmax_gradient_tampering.errors import UserError


class ArgumentParser(argparse.ArgumentParser):
    """Raises UserError in the place of usage and exit, and names the nearest flag."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            words = [word for word in unknown if word.startswith("-")] or unknown
            known = [option for action in self._actions for option in action.option_strings]
            raise UserError(
                f"unrecognized argument {words[0]}{nearest(words[0].split('=')[0], known)}"
            )
        return parsed


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message that names the nearest known name, where there is one near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""
