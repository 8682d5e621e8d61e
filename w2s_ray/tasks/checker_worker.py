"""Runs the researcher's own checker, as a program of its own that can be ended.

It imports ``package.module:function``, says which file that is, and then answers each line of JSON
on its standard input with a line of JSON. What the checker prints goes to the standard error.
Nothing of ours is imported here.
"""

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, TextIO

_LONGEST = 2_000
"""Characters of an error that are sent."""
_GRACE_SECONDS = 5.0
"""After its time a check ends this process, if the one that asked has not done so."""


def verdict(checker: Callable[..., Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """The reward of one answer, or why there is none."""
    try:
        value = checker(request["check"], request["prompt"], request["text"])
        if type(value).__module__ == "numpy":
            value = value.item()
    except (Exception, SystemExit) as error:
        return {"error": f"the checker raised {_line(error)}"}
    if isinstance(value, int | float) and 0 <= value <= 1:
        return {"reward": float(value)}
    try:
        given = repr(value)[:80]
    except Exception:
        given = type(value).__name__
    return {"error": f"the checker returned {given}, expected a bool or a number from 0 to 1"}


def _line(error: BaseException) -> str:
    """Class and message of an error, the latter of bounded length."""
    try:
        message = str(error)[:_LONGEST]
    except Exception:
        message = "(without a message)"
    return f"{type(error).__name__}: {message}"


def load(entry: str) -> Callable[..., Any]:
    """The function of an entry point, in what is imported now.

    Raises:
        TypeError: it cannot be called.
        Exception: whatever its module raises.
    """
    module, _, name = entry.partition(":")
    checker = getattr(importlib.import_module(module), name)
    if not callable(checker):
        raise TypeError(f"{name} is not a function")
    function: Callable[..., Any] = checker
    return function


def answer(out: TextIO, message: Mapping[str, Any]) -> None:
    """Writes one line."""
    out.write(json.dumps(message) + "\n")
    out.flush()


def main() -> None:
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    entry, seconds = sys.argv[1], float(sys.argv[2])
    sys.path.append(os.getcwd())
    try:
        checker = load(entry)
    except (Exception, SystemExit) as error:
        answer(out, {"error": _line(error)})
        return
    answer(out, {"file": getattr(sys.modules[entry.partition(":")[0]], "__file__", None)})
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_REAL, seconds + _GRACE_SECONDS)
        message = verdict(checker, json.loads(line))
        signal.setitimer(signal.ITIMER_REAL, 0)
        answer(out, message)


if __name__ == "__main__":
    main()
