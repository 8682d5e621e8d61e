"""A Ctrl-C that is not lost.

Python drops a KeyboardInterrupt that it raises inside a weakref callback or ``__del__`` (both run
often while modules are imported), and C code may turn one into another error. The signal handler
here remembers that the key was pressed, so that the next ``check`` raises it again.

The first one may be left to a loop that ends by itself, at a better moment.
"""

import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self


class Interrupts:
    """Watches SIGINT for as long as the context lasts; outside of the main thread it cannot.

    The handler from before is called too: it counts signals, and ends the process at the second.

    Args:
        ends_by_itself: asks what runs to end; if it will, the first signal raises nothing.
    """

    def __init__(self, ends_by_itself: Callable[[], bool] = lambda: False) -> None:
        self._pressed, self._ends_by_itself = False, ends_by_itself
        self._before: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def check(self) -> None:
        """Raises KeyboardInterrupt if the key was pressed, whatever became of the first one."""
        if self._pressed:
            raise KeyboardInterrupt

    def _press(self, number: int, frame: FrameType | None) -> None:
        is_first, self._pressed = not self._pressed, True
        with suppress(KeyboardInterrupt):
            if callable(self._before):
                self._before(number, frame)
        if not (is_first and self._ends_by_itself()):
            raise KeyboardInterrupt
