"""Training that stops between rounds: called after every optimizer step, on both sides.

A request ``{"steps": n}`` lets n steps pass and is answered with their seconds, by the clock and of
the processor. The clock runs from the request to the end of the last step, so that collating,
packing and the update are all in it. The first steps, which warm up, make the process ready.
"""

import time
from collections.abc import Callable
from typing import Any

from benchmarks.sides import answer, requests


class Rounds:
    """Args:
    warmup: steps before the first request.
    facts: what else an answer tells.
    """

    def __init__(self, warmup: int, facts: Callable[[], dict[str, Any]] = dict) -> None:
        self.facts = facts
        self._requests = requests()
        self._left = warmup
        self._start()

    def step_done(self) -> None:
        """Goes on at once, or answers and waits for the next request."""
        self._left -= 1
        if self._left:
            return
        answer(
            seconds=time.perf_counter() - self._started,
            cpu_seconds=time.process_time() - self._cpu_started,
            **self.facts(),
        )
        request = next(self._requests, None)
        if request is None:
            raise SystemExit
        self._left = int(request["steps"])
        self._start()

    def _start(self) -> None:
        self._started, self._cpu_started = time.perf_counter(), time.process_time()
