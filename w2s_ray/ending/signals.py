"""SIGINT, SIGTERM and SIGHUP: one line and an exit code at any moment.

While modules are imported there is nothing to clean up, so a signal ends the process at once.
Afterwards the first signal raises KeyboardInterrupt, as Ctrl-C does in any Python program: steps
release their claims, Ray is shut down. Where somebody else handles SIGINT (Ray Tune, or
``running.interrupts``, which let training save its state first), SIGTERM and SIGHUP go the same
way. A second signal ends the process at once; what it leaves is removed by the next run, as after
``kill -9``.

Imports nothing slow, since ``watch`` is called before everything else.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from w2s_ray.ending.codes import ExitCode

CODES = {
    signal.SIGINT: ExitCode.INTERRUPTED,
    signal.SIGTERM: ExitCode.TERMINATED,
    signal.SIGHUP: ExitCode.HANGUP,
}
RESUME = "Finished steps are kept; rerun the same command to resume."
_NAMES = {
    ExitCode.INTERRUPTED: "Interrupted",
    ExitCode.TERMINATED: "Terminated",
    ExitCode.HANGUP: "Hung up",
}
_SHOW_CURSOR = b"\x1b[?25h"


class _State:
    """What this process has received since ``watch``."""

    process = 0  # that watches; a forked child does not
    began = False  # something runs that should be cleaned up
    forwarding = False
    first: signal.Signals | None = None


def watch() -> None:
    """Handles the three signals from now on; those that are ignored (``nohup``) stay ignored."""
    _State.process = os.getpid()
    for number in CODES:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _receive)


def begin() -> None:
    """From now on the first signal raises KeyboardInterrupt."""
    _State.began = True


def end() -> None:
    """From now on signals are ignored: all is done, and the exit code is known."""
    if _State.process == os.getpid():
        for number in CODES:
            signal.signal(number, signal.SIG_IGN)


def code() -> ExitCode:
    """The exit code after a KeyboardInterrupt."""
    return CODES[_State.first] if _State.first is not None else ExitCode.INTERRUPTED


def line() -> str:
    """The line for people after a KeyboardInterrupt."""
    return f"{_NAMES[code()]}. {RESUME}"


def check() -> None:
    """Raises KeyboardInterrupt if a signal came; Python may have dropped the first one.

    It does so in weakref callbacks and ``__del__``, which run often while modules are imported.
    """
    if _State.first is not None:
        raise KeyboardInterrupt


@contextmanager
def kept() -> Iterator[None]:
    """Restores the handlers of the three signals after the block, also below Python.

    Ray's C++ sets handlers of its own that print a stack.
    """
    handlers = {number: signal.getsignal(number) for number in CODES}
    try:
        yield
    finally:
        with suppress(ValueError):  # outside of the main thread, where Ray sets none either
            for number, handler in handlers.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _receive(number: int, frame: FrameType | None) -> None:
    if _State.process != os.getpid() or _State.forwarding:
        raise KeyboardInterrupt
    is_first = _State.first is None
    if is_first:
        _State.first = signal.Signals(number)
    if not (_State.began and is_first):
        _end_now()
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler) and handler is not _receive:
        _State.forwarding = True
        try:
            handler(signal.SIGINT, frame)
        finally:
            _State.forwarding = False
        return
    raise KeyboardInterrupt


def _end_now() -> NoReturn:
    with suppress(OSError):
        if os.isatty(1):
            os.write(1, _SHOW_CURSOR)
        os.write(2, f"{line()}\n".encode())
    os._exit(code())
