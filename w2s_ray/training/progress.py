"""Progress of running work, reported a few times a second. Imports nothing heavy."""

import time
from collections.abc import Callable
from typing import Any

Progress = Callable[[dict[str, Any]], None]
SECONDS_BETWEEN_REPORTS = 0.25


class Throttle:
    """Says when the next report is due.

    Args:
        seconds: least time between two reports.
        at_once: whether the first report is due at once.
    """

    def __init__(self, seconds: float = SECONDS_BETWEEN_REPORTS, *, at_once: bool = False) -> None:
        self._seconds = seconds
        self._last = -float("inf") if at_once else time.monotonic()

    def due(self) -> bool:
        """Whether a report is due; if so, the next one is ``seconds`` later."""
        now = time.monotonic()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True
