"""What a check says of an answer.

Rules of ``families`` run in this process. A checker that the spec names is the researcher's own
Python: it runs in a process of its own, which is stopped and started anew if a call does not end in
time. Whatever it raises or returns is an error of that answer alone.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from w2s_ray.errors import InputError, line_of
from w2s_ray.spec.prompts import Prompts
from w2s_ray.tasks.families import obeys

START_SECONDS = 60.0
"""Time in which a checker's process must be ready: its module may import much."""


class Verdict(NamedTuple):
    """Attributes:
    reward: 0 to 1; None: there is none.
    error: why there is none, in one line.
    """

    reward: float | None
    error: str | None = None


Check = Mapping[str, Any]
Checker = Callable[[Check, str, str], Verdict]
"""(check, prompt, answer) → verdict."""


@contextmanager
def checker_of(spec: Prompts) -> Iterator[Checker]:
    """The checker of the prompts, which may hold a process while the block lasts."""
    if spec.checker is None:
        yield by_rule
        return
    process = _CheckerProcess(spec.checker, spec.timeout_seconds)
    try:
        yield process
    finally:
        process.stop()


def by_rule(check: Check, prompt: str, text: str) -> Verdict:
    """1 if the answer obeys the rule of ``check``, else 0."""
    return Verdict(float(obeys(check, text)))


def check_checker(spec: Prompts) -> None:
    """Refuses a checker that cannot be imported.

    Raises:
        InputError: there is no such module or function.
    """
    if spec.checker is not None:
        checker_identity(spec.checker)


def checker_identity(entry_point: str) -> dict[str, str]:
    """The name of a checker, and the digest of the source of its module.

    Raises:
        InputError: there is no such module or function.
    """
    try:
        source = inspect.getsource(import_module(_function(entry_point).__module__))
    except (OSError, TypeError) as error:
        raise InputError(
            f"prompts.checker: given {entry_point}, whose source cannot be read ({error}), "
            "expected a Python function",
            ("prompts", "checker"),
        ) from None
    return {"name": entry_point, "source": sha256(source.encode()).hexdigest()}


def _function(entry_point: str) -> Callable[..., Any]:
    name, _, function = entry_point.partition(":")
    try:
        found = getattr(import_module(name), function)
    except Exception as error:  # whatever the module raises
        raise InputError(
            f"prompts.checker: given {entry_point}, which cannot be imported: "
            f"{type(error).__name__}: {line_of(error)}",
            ("prompts", "checker"),
        ) from None
    if not callable(found):
        raise InputError(
            f"prompts.checker: given {entry_point}, expected a function", ("prompts", "checker")
        )
    function_found: Callable[..., Any] = found
    return function_found


def verdict_of(value: Any) -> Verdict:
    """What a checker has returned, as a verdict."""
    is_number = isinstance(value, bool | int | float)
    if not is_number or not math.isfinite(value) or not 0 <= value <= 1:
        return Verdict(None, f"the checker returned {value!r:.80}, expected a number from 0 to 1")
    return Verdict(float(value))


def _serve(entry_point: str, connection: Connection) -> None:
    """Answers calls until the connection is closed; runs in the checker's process."""
    function = _function(entry_point)
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
        connection.send(verdict)


class _CheckerProcess:
    """A checker in a process of its own, started at the first call."""

    def __init__(self, entry_point: str, timeout: float) -> None:
        self._entry_point, self._timeout = entry_point, timeout
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None

    def __call__(self, check: Check, prompt: str, text: str) -> Verdict:
        if self._connection is None:
            self._start()
        assert self._connection is not None
        try:
            self._connection.send((dict(check), prompt, text))
            if not self._connection.poll(self._timeout):
                self.stop()
                return Verdict(None, f"the checker did not end in {self._timeout:g} s")
            verdict: Verdict = self._connection.recv()
        except (EOFError, OSError):
            self.stop()
            return Verdict(None, "the checker's process ended")
        return verdict

    def stop(self) -> None:
        """Ends the process, if there is one."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._process = self._connection = None

    def _start(self) -> None:
        """Starts the process.

        Raises:
            RuntimeError: the checker cannot be imported there, or not in time.
        """
        context = get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._entry_point, other), daemon=True)
        self._process.start()
        other.close()
        try:
            is_ready = self._connection.poll(START_SECONDS)
            if is_ready:
                self._connection.recv()
        except EOFError:
            is_ready = False
        if not is_ready:
            self.stop()
            raise RuntimeError(f"the checker {self._entry_point} did not start")
