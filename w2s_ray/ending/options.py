"""Options of a command that are refused in one line, with the nearest name."""

import argparse
from difflib import get_close_matches
from typing import NoReturn

from w2s_ray.ending.codes import ExitCode
from w2s_ray.masking import masked


class OptionParser(argparse.ArgumentParser):
    """An ``ArgumentParser`` whose errors are one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Exits with code 2."""
        names = [name for action in self._actions for name in action.option_strings]
        given = [word.partition("=")[0] for word in message.split() if word.startswith("-")]
        near = [match for word in given for match in get_close_matches(word, names, 1)]
        hint = f"; did you mean {near[0]!r}?" if near and "unrecognized" in message else ""
        line = f"{self.prog}: {message}{hint} (--help lists all)"
        self.exit(ExitCode.INPUT, masked(" ".join(line.split())) + "\n")
