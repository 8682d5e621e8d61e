"""Heartbeats: one thread of a process that shows that it is alive, as long as it holds claims."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress

HEARTBEAT_SECONDS = 5.0


class Heartbeat:
    """One thread that renews all claims of this process; it ends when there are none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._beats: dict[str, Callable[[], object]] = {}
        self._thread: threading.Thread | None = None

    def start(self, name: str, beat: Callable[[], object]) -> None:
        """Call ``beat`` every ``HEARTBEAT_SECONDS`` from now on."""
        with self._lock:
            self._beats[name] = beat
            if self._thread is None or not self._thread.is_alive():  # none, or lost in a fork
                self._thread = threading.Thread(target=self._run, name="claims", daemon=True)
                self._thread.start()

    def stop(self, name: str) -> None:
        """After this no beat of ``name`` runs or is running."""
        with self._lock:
            self._beats.pop(name, None)

    def _run(self) -> None:
        while True:
            time.sleep(HEARTBEAT_SECONDS)
            for name in list(self._beats):
                with self._lock, suppress(OSError):
                    if name in self._beats:
                        self._beats[name]()
            with self._lock:
                if not self._beats:
                    self._thread = None
                    return


HEARTBEAT = Heartbeat()  # of this process
