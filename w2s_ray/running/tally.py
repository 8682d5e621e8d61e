"""Counts of a running study for whoever watches it: steps and cells by state, GPU-hours, time left.

Nothing here knows how a step is executed, or where the numbers are shown.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from w2s_ray.plan.graph import Cell
from w2s_ray.plan.step import Step
from w2s_ray.store.results import OWN_STEPS

OnEvent = Callable[[str, Step, dict[str, Any]], None]
STEP_STATES = ("done", "failed", "blocked", "running", "waiting")
CELL_STATES = ("done", "failed", "running", "waiting")


class Counts(NamedTuple):
    """A study at one moment.

    Attributes:
        steps: number of steps in each of ``STEP_STATES``, those finished earlier included.
        cells: number of cells in each of ``CELL_STATES``; ``failed`` includes the blocked ones.
        gpu_hours: of this run; a fused step counts once it has ended, by its share of the time.
        seconds_elapsed: since the first step of this run started.
        seconds_left: from what the finished part cost and took; None before anything is known.
    """

    steps: Mapping[str, int]
    cells: Mapping[str, int]
    gpu_hours: float
    seconds_elapsed: float
    seconds_left: float | None


class Tally:
    """Follows the events of a run; ``counts`` may be called from another thread.

    Args:
        todo: the steps of this run, by key.
        already_done: number of steps that were finished in the store before.
        cells: of the study.
        cost: of steps, by key, in any one unit; where no step has a cost, all weigh the same.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        todo: Mapping[str, Step],
        already_done: int,
        cells: Iterable[Cell],
        cost: Mapping[str, float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._already_done = already_done
        own = (frozenset(cell.keys[role] for role in OWN_STEPS) for cell in cells)
        self._cells = [keys & todo.keys() for keys in own]
        self._weights = {key: cost.get(key, 0.0) if cost else 1.0 for key in todo}
        self._children: dict[str, list[str]] = {}
        for key, step in todo.items():
            for parent in step.inputs.values():
                self._children.setdefault(parent, []).append(key)
        self._clock = clock
        self._lock = threading.Lock()
        self._began: float | None = None
        self._running: dict[str, _Running] = {}
        self._done: set[str] = set()
        self._failed: set[str] = set()
        self._blocked: set[str] = set()
        self._gpu_seconds = 0.0

    def __call__(self, event: str, step: Step, numbers: dict[str, Any]) -> None:
        with self._lock:
            now = self._clock()
            if event == "started":
                self._began = now if self._began is None else self._began
                self._running[step.key] = _Running(step, now)
            elif event == "progress":
                if (running := self._running.get(step.key)) and numbers.get("steps"):
                    part = min(1.0, numbers.get("step", 0) / numbers["steps"])
                    self._running[step.key] = running._replace(part=part)
            else:
                self._end(event, step, numbers, now)

    def _end(self, event: str, step: Step, numbers: Mapping[str, Any], now: float) -> None:
        running = self._running.pop(step.key, _Running(step, now))
        share = 0.0 if step.fusion is not None else now - running.started
        self._gpu_seconds += running.gpus * numbers.get("seconds", share)
        if event == "done":
            self._done.add(step.key)
        elif event == "failed":  # a step that crashed runs again
            self._failed.add(step.key)
            self._block(step.key)

    def _block(self, key: str) -> None:
        stack = [key]
        while stack:
            for child in self._children.get(stack.pop(), ()):
                if child not in self._blocked:
                    self._blocked.add(child)
                    stack.append(child)

    def counts(self) -> Counts:
        """The study now."""
        with self._lock:
            now = self._clock()
            gpu_seconds = self._gpu_seconds + sum(
                running.gpus * (now - running.started)
                for running in self._running.values()
                if running.step.fusion is None
            )
            elapsed = 0.0 if self._began is None else now - self._began
            return Counts(
                self._steps(), self._cell_counts(), gpu_seconds / 3600, elapsed, self._left(elapsed)
            )

    def _steps(self) -> dict[str, int]:
        over = {
            "done": len(self._done),
            "failed": len(self._failed),
            "blocked": len(self._blocked),
            "running": len(self._running),
        }
        waiting = len(self._weights) - sum(over.values())
        return {**over, "done": over["done"] + self._already_done, "waiting": waiting}

    def _cell_counts(self) -> dict[str, int]:
        counts = dict.fromkeys(CELL_STATES, 0)
        lost = self._failed | self._blocked
        for keys in self._cells:
            if keys <= self._done:
                counts["done"] += 1
            elif keys & lost:
                counts["failed"] += 1
            else:
                counts["running" if keys & self._running.keys() else "waiting"] += 1
        return counts

    def _left(self, elapsed: float) -> float | None:
        over = self._done | self._failed | self._blocked
        weights = self._weights
        begun = sum(running.part * weights[key] for key, running in self._running.items())
        left = sum(weight for key, weight in weights.items() if key not in over) - begun
        computed = sum(weights[key] for key in self._done) + begun
        if computed <= 0:
            return None
        return elapsed * max(0.0, left) / computed


class _Running(NamedTuple):
    """A running step.

    Attributes:
        started: by the tally's clock.
        part: of its work that is done, 0 to 1.
    """

    step: Step
    started: float
    part: float = 0.0

    @property
    def gpus(self) -> float:
        return self.step.execution.processes * self.step.execution.gpus_per_worker


def to_all(*listeners: OnEvent) -> OnEvent:
    """One listener that passes each event on to all of these, in this order."""

    def pass_on(event: str, step: Step, numbers: dict[str, Any]) -> None:
        for listener in listeners:
            listener(event, step, numbers)

    return pass_on
