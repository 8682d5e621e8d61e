"""What a run has done so far, from its events: the numbers that every display shows.

Steps that are computed together (``plan.fusion``) are one line. Nothing here prints.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from w2s_ray.console.time_left import Estimate, TimeLeft, Underway
from w2s_ray.plan.step import Step


@dataclass(frozen=True, eq=False)
class Line:
    """One step that runs, or several that are computed together, with the newest numbers."""

    underway: Underway
    numbers: dict[str, Any] = field(default_factory=dict)

    @property
    def share(self) -> str:
        """``31/125 steps``, or ""."""
        numbers = self.numbers
        if not numbers.get("steps"):
            return ""
        return f"{numbers['step']:,}/{numbers['steps']:,} {numbers.get('unit', 'steps')}"

    @property
    def loss(self) -> str:
        return f"loss {self.numbers['loss']:.4f}" if "loss" in self.numbers else ""

    @property
    def speed(self) -> str:
        rate = self.numbers.get("tokens_per_second")
        return f"{rate:,.0f} tokens/s" if rate else ""


class RunState:
    """Counts of a run.

    Args:
        todo: the steps of this run.
        already_done: number of steps that were finished in the store before.
        cost: operations of steps by key, of those that have some.
    """

    def __init__(
        self, todo: Mapping[str, Step], already_done: int, cost: Mapping[str, float]
    ) -> None:
        self.todo, self.already_done = todo, already_done
        self.began = time.monotonic()
        self.done = 0
        self.failed: dict[str, str] = {}
        self.blocked: set[str] = set()
        self._running: dict[str, Line] = {}
        self._started_last: Line | None = None
        self._time_left = TimeLeft(todo, cost)
        self._children: dict[str, list[str]] = defaultdict(list)
        for key, step in todo.items():
            for parent in step.inputs.values():
                self._children[parent].append(key)

    def start(self, step: Step) -> None:
        """The step runs, with those of its fusion whose start was told just before.

        One that failed is tried again; what it blocked waits for it.
        """
        if self.failed.pop(step.key, None) is None:
            self._time_left.remove(step)
        else:
            self._unblock()
        line, fusion = self._started_last, step.fusion
        if line is None or fusion is None or line.underway.step.fusion != fusion:
            line = Line(Underway(step, time.monotonic()))
        line.underway.steps[step.key] = step
        self._running[step.key] = self._started_last = line

    def progress(self, step: Step, numbers: Mapping[str, Any]) -> None:
        """Newest numbers of a running step."""
        self._started_last = None
        if (line := self._running.get(step.key)) is None:
            return
        line.numbers.update(numbers)
        if steps := numbers.get("steps"):
            line.underway.report(time.monotonic(), min(1.0, numbers["step"] / steps))

    def give_back(self, step: Step) -> None:
        """The step's process died; it will run again."""
        self._end(step)
        self._time_left.add(step)

    def finish(self, step: Step, seconds: float | None) -> float:
        """The step is done, after so many seconds; None: since it started. Returns them."""
        took = self._end(step)
        seconds = took if seconds is None else seconds
        self._time_left.finished(step, seconds)
        self.done += 1
        return seconds

    def fail(self, step: Step, error: str) -> None:
        """The step failed, and blocks those below it."""
        self._end(step)
        self.failed[step.key] = error
        for key in self._below([step.key]) - self.blocked:
            self.blocked.add(key)
            self._time_left.remove(self.todo[key])

    def lines(self) -> list[Line]:
        """What runs, in the order in which it started."""
        return list(dict.fromkeys(list(self._running.values())))

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        over = self.done + len(self.failed) + len(self.blocked)
        return len(self.todo) - over - len(self._running)

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.began

    @property
    def share(self) -> float:
        """Of the run's time, as far as it is known; of its steps before it is. In [0, 1]."""
        left = self.time_left()
        if left is None or left.is_bound:
            return self.done / max(1, len(self.todo))
        return self.elapsed / max(self.elapsed + left.seconds, 1e-9)

    def time_left(self) -> Estimate | None:
        """See ``time_left``."""
        underway = [line.underway for line in self.lines()]
        return self._time_left.estimate(underway, time.monotonic())

    def _end(self, step: Step) -> float:
        """Seconds since the step started."""
        self._started_last = None
        line = self._running.pop(step.key, None)
        if line is None:
            if step.key in self.todo:
                self._time_left.remove(step)
            return 0.0
        del line.underway.steps[step.key]
        return time.monotonic() - line.underway.started

    def _unblock(self) -> None:
        """What is below no failed step any more waits again."""
        freed = self.blocked - self._below(self.failed)
        self.blocked -= freed
        for key in freed:
            self._time_left.add(self.todo[key])

    def _below(self, keys: Iterable[str]) -> set[str]:
        """Keys of all steps below some."""
        below: set[str] = set()
        stack = list(keys)
        while stack:
            for child in self._children[stack.pop()]:
                if child not in below:
                    below.add(child)
                    stack.append(child)
        return below
