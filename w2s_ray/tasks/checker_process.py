"""A checker in a process of its own: ``python -m w2s_ray.tasks.checker_process ENTRY_POINT FD``.

The process is a fresh interpreter, which imports the researcher's module alone, and talks through
one socket; what it prints goes to the standard error stream.
"""

import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from w2s_ray.errors import InputError, line_of

START_SECONDS = 60.0
"""Time in which the process must be ready: the checker's module may import much."""
Check = Mapping[str, Any]


class Verdict(NamedTuple):
    """Attributes:
    reward: 0 to 1; None: there is none.
    error: why there is none, in one line.
    """

    reward: float | None
    error: str | None = None


class CheckerProcess:
    """Calls a checker; its process starts at the first call, and anew after one that did not end.

    Args:
        timeout: seconds of a call.
    """

    def __init__(self, entry_point: str, timeout: float) -> None:
        self._entry_point, self._timeout = entry_point, timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def __call__(self, check: Check, prompt: str, text: str) -> Verdict:
        """The verdict on an answer.

        Raises:
            RuntimeError: the process cannot be started.
        """
        connection = self._connection or self._start()
        try:
            connection.send((dict(check), prompt, text))
            if not connection.poll(self._timeout):
                self.stop()
                return Verdict(None, f"the checker did not end in {self._timeout:g} s")
            return Verdict(*connection.recv())
        except (EOFError, OSError):
            self.stop()
            return Verdict(None, "the checker's process ended")

    def stop(self) -> None:
        """Ends the process, if there is one."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._connection = None

    def _start(self) -> Connection:
        own, other = socket.socketpair()
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, self._entry_point, str(other.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno() if _has_file(sys.stderr) else subprocess.DEVNULL,
                pass_fds=[other.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        self._connection = Connection(own.detach())
        try:
            if self._connection.poll(START_SECONDS):
                self._connection.recv()
                return self._connection
        except EOFError:
            pass
        self.stop()
        raise RuntimeError(f"the checker {self._entry_point} did not start")


def _has_file(stream: Any) -> bool:
    """Whether a stream is an open file of this process."""
    try:
        return int(stream.fileno()) >= 0
    except (AttributeError, OSError, ValueError):
        return False


def function_of(entry_point: str) -> Callable[..., Any]:
    """The function that ``package.module:function`` names.

    Raises:
        InputError: it cannot be imported, or is no function.
    """
    name, _, attribute = entry_point.partition(":")
    try:
        function = getattr(import_module(name), attribute)
    except Exception as error:  # whatever the module raises
        raise InputError(
            f"prompts.checker: given {entry_point}, which cannot be imported: "
            f"{type(error).__name__}: {line_of(error)}",
            ("prompts", "checker"),
        ) from None
    if not callable(function):
        raise InputError(
            f"prompts.checker: given {entry_point}, expected a function", ("prompts", "checker")
        )
    checker: Callable[..., Any] = function
    return checker


def verdict_of(value: Any) -> Verdict:
    """What a checker has returned, as a verdict."""
    is_number = isinstance(value, bool | int | float)
    if not is_number or not math.isfinite(value) or not 0 <= value <= 1:
        return Verdict(None, f"the checker returned {value!r:.80}, expected a number from 0 to 1")
    return Verdict(float(value))


def _serve(entry_point: str, connection: Connection) -> None:
    """Answers calls until the connection is closed."""
    function = function_of(entry_point)
    connection.send(None)
    while True:
        try:
            arguments = connection.recv()
        except EOFError:
            return
        try:
            verdict = verdict_of(function(*arguments))
        except Exception as error:  # whatever the checker raises
            verdict = Verdict(None, f"the checker raised {type(error).__name__}: {line_of(error)}")
        connection.send(tuple(verdict))


if __name__ == "__main__":
    _serve(sys.argv[1], Connection(int(sys.argv[2])))
