"""How far a pass over many bytes is: a bar on a terminal, a line each 30 seconds elsewhere."""

import threading
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from w2s_ray.store.upkeep.trees import size_text

LINE_SECONDS = 30.0


class ByteProgress:
    """Counts bytes towards a total; can be used by many threads.

    Args:
        what: is done, as ``verify``.
        total: in bytes.
    """

    def __init__(self, what: str, total: int, console: Console) -> None:
        self._what, self._total, self._console = what, total, console
        self._done, self._next = 0, time.monotonic() + LINE_SECONDS
        self._lock = threading.Lock()
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True))
        self._bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
        self._task = self._bar.add_task(what, total=total)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def add(self, count: int) -> None:
        """Counts some more bytes."""
        if self._console.is_terminal:
            self._bar.advance(self._task, count)
            return
        with self._lock:
            self._done += count
            now = time.monotonic()
            if now < self._next:
                return
            self._next = now + LINE_SECONDS
            share = f"{size_text(self._done)} of {size_text(self._total)}"
        self._console.print(f"{self._what}: {share}", highlight=False, markup=False)
