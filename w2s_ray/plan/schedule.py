"""Which steps may run next: a pure state machine shared by the local run and the Ray run.

Nothing here knows how a step is executed. A failed step blocks its descendants and nothing else.

Among ready steps the head of the most costly chain of descendants goes first; otherwise a run would
end with one process busy on a chain that could have started long before. Where costs are equal
(heads cost almost nothing) the longest chain goes first, so that the steps below it become ready
together and can be fused.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from heapq import heappop, heappush
from itertools import islice
from typing import NamedTuple

from w2s_ray.plan.step import Fusion, Step
from w2s_ray.spec.inputs import ModelSpec

ABOUT_EQUAL = 0.9  # share of the greatest cost from which a chain counts as equally urgent
SMALLEST_PART = 128  # steps of a fused group; starting a smaller one elsewhere does not pay
LARGEST_PART = 1024  # steps, whose artifacts are in memory until they are committed

Group = tuple[Step, ...]


class _Chain(NamedTuple):
    """The most costly chain from a step down, the step included."""

    cost: float = 0.0
    steps: int = 0


class _Entry(NamedTuple):
    """A ready step in a queue. Sorts by urgency, then by the order of the plan."""

    minus_cost: float
    minus_steps: int
    rank: int
    key: str

    def about_as_urgent_as(self, other: "_Entry") -> bool:
        if other.minus_cost == 0.0:
            return self[:2] == other[:2]
        return self.minus_cost <= ABOUT_EQUAL * other.minus_cost


class Schedule:
    """States of the unfinished steps: waiting → ready → running → done | failed, or blocked.

    A step whose process died may go back from running to ready.

    Args:
        todo: the unfinished steps by key, in topological order. Inputs that are not among them
            count as finished.
        cost: of steps by key, in one unit; 0 for a step that is not in it.
    """

    def __init__(self, todo: Mapping[str, Step], cost: Mapping[str, float] | None = None) -> None:
        self._steps = dict(todo)
        self._children: dict[str, list[str]] = {key: [] for key in todo}
        self._missing: dict[str, int] = {}
        for key, step in todo.items():
            parents = {parent for parent in step.inputs.values() if parent in todo}
            self._missing[key] = len(parents)
            for parent in parents:
                self._children[parent].append(key)
        self._entries = self._by_urgency(cost or {})
        self.ready: set[str] = set()
        # Ready steps by the model they load, each a heap in which started steps may linger.
        self._queues: dict[ModelSpec | None, list[_Entry]] = defaultdict(list)
        self._fusible: dict[Fusion, dict[str, None]] = defaultdict(dict)
        self._claims: dict[str, str] = {}
        self._alone: set[str] = set()  # steps that are not fused any more
        self._loaded: ModelSpec | None = None
        self.running: set[str] = set()
        self.done: set[str] = set()
        self.failed: set[str] = set()
        self.blocked: dict[str, str] = {}  # key → key of the failed step that blocks it
        for key, missing in self._missing.items():
            if missing == 0:
                self._make_ready(key)

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def waiting(self) -> int:
        """Number of steps that wait for an input."""
        over = len(self.done) + len(self.failed) + len(self.blocked)
        return len(self._steps) - over - len(self.running) - len(self.ready)

    @property
    def finished(self) -> bool:
        """Whether nothing runs and nothing more can start."""
        return not self.ready and not self.running

    def start(
        self, accept: Callable[[Step], bool] = lambda step: True, *, processes: int = 1
    ) -> Group:
        """Starts the most urgent ready step that ``accept`` takes, and the steps fused with it.

        Among about equally urgent steps, one goes first whose model was loaded by the step that
        finished last, since that process is free.

        Args:
            processes: number of free ones; a large group leaves an even share to the others.

        Returns:
            The steps, now running; () if no ready step is accepted.
        """
        firsts = {
            model: first
            for model, queue in self._queues.items()
            if (first := self._first(queue, accept)) is not None
        }
        if not firsts:
            return ()
        chosen = min(firsts.values())
        warm = firsts.get(self._loaded) if self._loaded is not None else None
        if warm is not None and warm.about_as_urgent_as(chosen):
            chosen = warm
        group = self._group(self._steps[chosen.key], accept, processes)
        for step in group:
            self.ready.remove(step.key)
            self.running.add(step.key)
            if (fusion := step.fusion) is not None and step.key not in self._alone:
                del self._fusible[fusion][step.key]
        return group

    def _group(self, lead: Step, accept: Callable[[Step], bool], processes: int) -> Group:
        """The steps to start with ``lead``: first those that share its claim.

        They are in the order of ``Step.order``, whatever their urgency, and those whose claim a
        running group has come last. A group ends where the steps of a claim end, if it has those of
        several. So processes do not wait for each other's claims.
        """
        fusion = lead.fusion
        if fusion is None or lead.key in self._alone:
            return (lead,)
        fused = [self._steps[key] for key in self._fusible[fusion]]
        if fusion.limit is not None:
            others = (step for step in fused if step is not lead and accept(step))
            return (lead, *islice(others, fusion.limit - 1))
        part = min(LARGEST_PART, max(SMALLEST_PART, -(-len(fused) // processes)))
        busy = {self._claim(self._steps[key]) for key in self.running}
        first = self._claim(lead)
        fused.sort(key=lambda s: ((own := self._claim(s)) in busy, own != first, s.order))
        group = list(islice(filter(accept, fused), part + 1))
        if len(group) > part:
            cut = self._claim(group.pop())
            whole = [step for step in group if self._claim(step) != cut]
            group = whole or group
        return tuple(sorted(group, key=lambda step: step.order))

    def _claim(self, step: Step) -> str:
        if step.key not in self._claims:
            self._claims[step.key] = step.claim
        return self._claims[step.key]

    def give_back(self, key: str, *, alone: bool = False) -> None:
        """Makes a running step ready again, since its process died before it could end.

        Args:
            alone: start it without others from now on, so that each of a group's steps shows by
                itself whether it ends its process.
        """
        self.running.remove(key)
        if alone:
            self._alone.add(key)
        self._make_ready(key)

    def succeed(self, key: str) -> None:
        """Records that ``key`` has its artifact; its children may become ready."""
        self.running.remove(key)
        self.done.add(key)
        self._loaded = self._steps[key].backbone or self._loaded
        for child in self._children[key]:
            self._missing[child] -= 1
            if self._missing[child] == 0 and child not in self.blocked:
                self._make_ready(child)

    def fail(self, key: str) -> None:
        """Records that ``key`` has failed, and blocks its descendants."""
        self.running.remove(key)
        self.failed.add(key)
        stack = list(self._children[key])
        while stack:
            child = stack.pop()
            if child not in self.blocked:
                self.blocked[child] = key
                stack.extend(self._children[child])

    def _by_urgency(self, cost: Mapping[str, float]) -> dict[str, _Entry]:
        chains: dict[str, _Chain] = {}
        for key in reversed(self._steps):
            below = max((chains[child] for child in self._children[key]), default=_Chain())
            chains[key] = _Chain(cost.get(key, 0.0) + below.cost, 1 + below.steps)
        return {
            key: _Entry(-chains[key].cost, -chains[key].steps, rank, key)
            for rank, key in enumerate(self._steps)
        }

    def _make_ready(self, key: str) -> None:
        step = self._steps[key]
        self.ready.add(key)
        heappush(self._queues[step.backbone], self._entries[key])
        fusion = step.fusion
        if fusion is not None and key not in self._alone:
            self._fusible[fusion][key] = None

    def _first(self, queue: list[_Entry], accept: Callable[[Step], bool]) -> _Entry | None:
        """The first entry of a queue that is ready and accepted; it stays in the queue."""
        skipped = []
        first = None
        while queue and first is None:
            entry = queue[0]
            if entry.key in self.ready and accept(self._steps[entry.key]):
                first = entry
            else:
                heappop(queue)
                if entry.key in self.ready:
                    skipped.append(entry)
        for entry in skipped:
            heappush(queue, entry)
        return first
