"""Log files that the Ray dashboard shows: one of the driver, and one of each actor.

An actor's lines go to its standard error, which Ray keeps as the log of that process. The driver's
go to ``w2s_ray-<study>.log`` among the logs of its machine.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from w2s_ray.errors import one_line
from w2s_ray.plan.schedule import Group
from w2s_ray.plan.step import Step
from w2s_ray.running.events import OnEvent
from w2s_ray.running.run_state import Counts
from w2s_ray.training.progress import Throttle

PROGRESS_SECONDS = 30.0
_FORMAT = logging.Formatter("%(asctime)s %(message)s")
_SHOWN = ("step", "steps", "loss", "tokens_per_second")


class StepLog:
    """What one actor does, line by line: ``started``, every 30 s, and how it ended."""

    def __init__(self) -> None:
        handler = logging.StreamHandler(sys.stderr)
        self._log = _logger("w2s_ray.actor", handler)

    def started(self, group: Group) -> None:
        self._name, self._began = described(group), time.monotonic()
        self._throttle, self._newest = Throttle(PROGRESS_SECONDS), dict[str, Any]()
        self._log.info("started %s", self._name)

    def progress(self, numbers: Mapping[str, Any]) -> None:
        self._newest.update(numbers)
        if self._throttle.due():
            newest = self._newest
            shown = ", ".join(f"{name} {_short(newest[name])}" for name in _SHOWN if name in newest)
            self._log.info("%s: %.0f s%s", self._name, self._seconds(), shown and f", {shown}")

    def ended(self, how: str) -> None:
        self._log.info("%s %s after %.1f s", one_line(how), self._name, self._seconds())

    def _seconds(self) -> float:
        return time.monotonic() - self._began


@contextmanager
def driver_log(folder: Path | None, study: str, read: Callable[[], Counts]) -> Iterator[OnEvent]:
    """A listener that writes the events of a run to a file in ``folder``, if that can be written.

    Args:
        read: returns the counts of the study, which are logged now and then.
    """
    handler: logging.Handler = logging.NullHandler()
    if folder is not None:
        with suppress(OSError):
            handler = _FileHandler(folder / f"w2s_ray-{study}.log")
    log, throttle = _logger("w2s_ray.driver", handler), Throttle(PROGRESS_SECONDS)

    def write(event: str, step: Step, numbers: dict[str, Any]) -> None:
        if event != "progress":
            error = f": {one_line(numbers['error'])}" if "error" in numbers else ""
            log.info("%s %s%s", event, described((step,)), error)
        if throttle.due():
            log.info("%s", _line(read()))

    try:
        log.info("study %s: %s", study, _line(read()))
        yield write
        log.info("study %s ended: %s", study, _line(read()))
    finally:
        log.removeHandler(handler)
        handler.close()


class _FileHandler(logging.FileHandler):
    """A file whose disk may be full: nothing is worth less than this log."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Says nothing."""


def described(group: Group) -> str:
    """Kind, slug and key of the first step, and how many come with it."""
    first = group[0]
    more = f" and {len(group) - 1:,} more" if len(group) > 1 else ""
    return f"{first.kind} {first.slug}-{first.key}{more}"


def _line(counts: Counts) -> str:
    steps = ", ".join(f"{count:,} {state}" for state, count in counts.steps.items() if count)
    cells = f"{counts.cells['done']:,} of {sum(counts.cells.values()):,} cells done"
    left = counts.seconds_left
    return f"steps: {steps}; {cells}" + ("" if left is None else f"; about {left:.0f} s left")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _logger(name: str, handler: logging.Handler) -> logging.Logger:
    log = logging.getLogger(name)
    log.handlers = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False
    handler.setFormatter(_FORMAT)
    return log
