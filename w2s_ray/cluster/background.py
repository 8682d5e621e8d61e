"""Work in a thread of its own, so that the caller can be interrupted while it waits."""

import threading
from collections.abc import Callable
from typing import Any

POLL_SECONDS = 0.2


def in_thread(work: Callable[[], Any], name: str) -> Any:
    """Returns or raises what ``work()`` does, in a daemon thread called ``name``.

    If the caller is interrupted, the thread keeps running until the process ends.
    """
    thread = _Background(work, name)
    thread.start()
    while thread.is_alive():
        thread.join(POLL_SECONDS)
    if thread.error is not None:
        raise thread.error
    return thread.outcome


class _Background(threading.Thread):
    """Runs ``work()`` and stores what it returns or raises."""

    def __init__(self, work: Callable[[], Any], name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._work = work
        self.outcome: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """Called by ``start``."""
        try:
            self.outcome = self._work()
        except BaseException as error:
            self.error = error
