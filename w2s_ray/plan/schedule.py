"""Which step may run next: a pure state machine shared by the local run and the Ray run.

Nothing here knows how a step is executed. A failed step blocks its descendants and nothing else.
"""

from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heappush

from w2s_ray.plan.graph import Step


class Schedule:
    """States of the unfinished steps: waiting → ready → running → done | failed, or blocked.

    Args:
        todo: the unfinished steps in topological order, by key. Inputs that are not among them
            count as finished.
        priority: larger first among ready steps; ties keep the plan's order.
    """

    def __init__(
        self, todo: Mapping[str, Step], priority: Callable[[Step], float] = lambda step: 0.0
    ) -> None:
        self._steps = dict(todo)
        self._children: dict[str, list[str]] = {key: [] for key in todo}
        self._missing: dict[str, int] = {}
        rank = {key: position for position, key in enumerate(todo)}
        self._urgency = {key: (-priority(step), rank[key]) for key, step in todo.items()}
        for key, step in todo.items():
            parents = {parent for parent in step.inputs.values() if parent in todo}
            self._missing[key] = len(parents)
            for parent in parents:
                self._children[parent].append(key)
        self.ready = {key for key, missing in self._missing.items() if missing == 0}
        self._queue = [(self._urgency[key], key) for key in self.ready]
        heapify(self._queue)
        self.running: set[str] = set()
        self.done: set[str] = set()
        self.failed: set[str] = set()
        self.blocked: dict[str, str] = {}  # key -> the failed step that blocks it

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def waiting(self) -> int:
        """Steps that are neither over nor running nor ready."""
        over = len(self.done) + len(self.failed) + len(self.blocked)
        return len(self._steps) - over - len(self.running) - len(self.ready)

    @property
    def finished(self) -> bool:
        """Nothing runs and nothing can be started any more."""
        return not self.ready and not self.running

    def start(self, accept: Callable[[Step], bool] = lambda step: True) -> Step | None:
        """The most urgent ready step that ``accept`` takes, now running; None if there is none."""
        passed_over = []
        started = None
        while self._queue and started is None:
            urgency, key = heappop(self._queue)
            if accept(self._steps[key]):
                self.ready.remove(key)
                self.running.add(key)
                started = self._steps[key]
            else:
                passed_over.append((urgency, key))
        for entry in passed_over:
            heappush(self._queue, entry)
        return started

    def succeed(self, key: str) -> None:
        """``key`` has its artifact; its children may become ready."""
        self.running.remove(key)
        self.done.add(key)
        for child in self._children[key]:
            self._missing[child] -= 1
            if self._missing[child] == 0 and child not in self.blocked:
                self.ready.add(child)
                heappush(self._queue, (self._urgency[child], child))

    def fail(self, key: str) -> None:
        """``key`` has failed; all that rests on it is blocked, the rest goes on."""
        self.running.remove(key)
        self.failed.add(key)
        stack = list(self._children[key])
        while stack:
            child = stack.pop()
            if child not in self.blocked:
                self.blocked[child] = key
                stack.extend(self._children[child])
