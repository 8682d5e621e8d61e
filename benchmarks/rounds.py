"""Training that pauses between rounds; called after every optimizer step, on both sides.

A request ``{"steps": n}`` lets n steps run and is answered with their wall-clock and CPU seconds.
Time is measured from the request to the end of the last step, so it includes collating, packing and
the update. The process is ready after the first steps, which are the warm-up.
"""

import time
from collections.abc import Callable
from typing import Any

from benchmarks.sides import answer, requests


class Rounds:
    """Pauses a training run between rounds.

    Args:
        warmup: steps before the first request.
        facts: returns what else to include in an answer.
    """

    def __init__(self, warmup: int, facts: Callable[[], dict[str, Any]] = dict) -> None:
        self.facts = facts
        self._requests = requests()
        self._remaining = warmup
        self._start()

    def step_done(self) -> None:
        """Continue at once, or at the end of a round answer and wait for the next request."""
        self._remaining -= 1
        if self._remaining:
            return
        answer(
            seconds=time.perf_counter() - self._started,
            cpu_seconds=time.process_time() - self._cpu_started,
            **self.facts(),
        )
        request = next(self._requests, None)
        if request is None:
            raise SystemExit
        self._remaining = int(request["steps"])
        self._start()

    def _start(self) -> None:
        self._started, self._cpu_started = time.perf_counter(), time.process_time()
