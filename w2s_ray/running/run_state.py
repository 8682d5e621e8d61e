"""What a run has done so far, from its events: the numbers that displays and metrics show.

Steps that are computed together (``plan.fusion``) are one line. Nothing here prints, or knows how a
step is executed.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from w2s_ray.plan.graph import Cell
from w2s_ray.plan.step import Step
from w2s_ray.running.time_left import Estimate, TimeLeft, Underway
from w2s_ray.store.results import OWN_STEPS

STEP_STATES = ("done", "failed", "blocked", "running", "waiting")
CELL_STATES = ("done", "failed", "running", "waiting")


class Counts(NamedTuple):
    """A study at one moment.

    Attributes:
        steps: number of steps in each of ``STEP_STATES``, those finished earlier included.
        cells: number of cells in each of ``CELL_STATES``; ``failed`` includes the blocked ones.
        gpu_hours: of this run; a fused step counts once it has ended, by its share of the time.
        seconds_elapsed: since the run began.
        seconds_left: None before anything is known (``time_left``).
    """

    steps: Mapping[str, int]
    cells: Mapping[str, int]
    gpu_hours: float
    seconds_elapsed: float
    seconds_left: float | None


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
    """Follows the events of a run; may be read from another thread.

    Args:
        todo: the steps of this run.
        already_done: number of steps that were finished in the store before.
        cost: operations of steps by key, of those that have some.
        cells: of the study.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        todo: Mapping[str, Step],
        already_done: int,
        cost: Mapping[str, float],
        cells: Iterable[Cell] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.todo, self._already_done, self._clock = todo, already_done, clock
        own = (frozenset(cell.keys[role] for role in OWN_STEPS) for cell in cells)
        self._cells = [keys & todo.keys() for keys in own]
        self._lock = threading.Lock()
        self._began = clock()
        self._done: set[str] = set()
        self.failed: dict[str, str] = {}
        self.blocked: set[str] = set()
        self._running: dict[str, Line] = {}
        self._started_last: Line | None = None
        self._time_left = TimeLeft(todo, cost)
        self._gpu_seconds = 0.0
        self._children: dict[str, list[str]] = defaultdict(list)
        for key, step in todo.items():
            for parent in step.inputs.values():
                self._children[parent].append(key)

    def __call__(self, event: str, step: Step, numbers: Mapping[str, Any]) -> None:
        """Takes an event of the run."""
        with self._lock:
            now = self._clock()
            if event == "started":
                self._start(step, now)
            elif event == "progress":
                self._progress(step, numbers, now)
            else:
                self._end(event, step, numbers, now)

    def counts(self) -> Counts:
        """The study now."""
        with self._lock:
            now = self._clock()
            underway = [line.underway for line in self.lines()]
            alone = (each for each in underway if each.step.fusion is None)
            gpu_seconds = sum(_gpus(each.step) * (now - each.started) for each in alone)
            gpu_hours = (self._gpu_seconds + gpu_seconds) / 3600
            left = self._time_left.estimate(underway, now)
            seconds_left = None if left is None else left.seconds
            elapsed = now - self._began
            return Counts(self._steps(), self._cell_counts(), gpu_hours, elapsed, seconds_left)

    def lines(self) -> list[Line]:
        """What runs, in the order in which it started."""
        return list(dict.fromkeys(list(self._running.values())))

    @property
    def done(self) -> int:
        """Steps that this run has finished."""
        return len(self._done)

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
        return self._clock() - self._began

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
        return self._time_left.estimate(underway, self._clock())

    def _steps(self) -> dict[str, int]:
        return {
            "done": self.done + self._already_done,
            "failed": len(self.failed),
            "blocked": len(self.blocked),
            "running": self.running,
            "waiting": self.waiting,
        }

    def _cell_counts(self) -> dict[str, int]:
        counts = dict.fromkeys(CELL_STATES, 0)
        lost = self.failed.keys() | self.blocked
        for keys in self._cells:
            if keys <= self._done:
                counts["done"] += 1
            elif keys & lost:
                counts["failed"] += 1
            else:
                counts["running" if keys & self._running.keys() else "waiting"] += 1
        return counts

    def _start(self, step: Step, now: float) -> None:
        """The step runs, with those of its fusion whose start was told just before.

        One that failed is tried again; what it blocked waits for it.
        """
        if self.failed.pop(step.key, None) is None:
            self._time_left.remove(step)
        else:
            self._unblock()
        line, fusion = self._started_last, step.fusion
        if line is None or fusion is None or line.underway.step.fusion != fusion:
            line = Line(Underway(step, now))
        line.underway.steps[step.key] = step
        self._running[step.key] = self._started_last = line

    def _progress(self, step: Step, numbers: Mapping[str, Any], now: float) -> None:
        """Newest numbers of a running step."""
        self._started_last = None
        if (line := self._running.get(step.key)) is None:
            return
        line.numbers.update(numbers)
        if steps := numbers.get("steps"):
            line.underway.report(now, min(1.0, numbers["step"] / steps))

    def _end(self, event: str, step: Step, numbers: Mapping[str, Any], now: float) -> None:
        """The step is done or failed, or its process died and it will run again."""
        if step.key in self.failed:  # it was tried again, and nobody saw it start
            self._start(step, now)
        took = self._stop(step, now)
        is_alone = step.fusion is None
        self._gpu_seconds += _gpus(step) * numbers.get("seconds", took if is_alone else 0.0)
        if event == "done":
            self._time_left.finished(step, numbers.get("seconds", took))
            self._done.add(step.key)
        elif event == "failed":
            self.failed[step.key] = numbers["error"]
            for key in self._below([step.key]) - self.blocked:
                self.blocked.add(key)
                self._time_left.remove(self.todo[key])
        else:
            self._time_left.add(step)

    def _stop(self, step: Step, now: float) -> float:
        """Seconds since the step started."""
        self._started_last = None
        line = self._running.pop(step.key, None)
        if line is None:
            if step.key in self.todo:
                self._time_left.remove(step)
            return 0.0
        del line.underway.steps[step.key]
        return now - line.underway.started

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


def _gpus(step: Step) -> float:
    return step.execution.devices * step.execution.gpus_per_worker
