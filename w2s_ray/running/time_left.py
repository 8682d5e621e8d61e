"""How long the steps that remain will take, from their work and the speed that was measured.

The work of a step that runs a backbone is its operations (``plan.cost``), that of any other step is
one. What finished and running steps of a kind have done a second gives the time of those that
remain; a kind with operations that was not measured yet is as fast as all such kinds together.
A step under way is measured from its first report on, so that loading a model, or what was done
before it was resumed, does not count as speed.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from w2s_ray.plan.step import Step


class Estimate(NamedTuple):
    """A time in seconds; a lower bound if some of the steps have not been measured."""

    seconds: float
    is_bound: bool


class _Unit(NamedTuple):
    """What the work of a step is counted in."""

    kind: str
    in_operations: bool


class _Report(NamedTuple):
    """At a time, the share of the work that was done."""

    time: float
    share: float


class Underway:
    """A running step, or several that are computed together.

    Attributes:
        step: the first of them.
        steps: those that are not over, by key.
        started: when, as all times here by ``time.monotonic``.
    """

    def __init__(self, step: Step, started: float) -> None:
        self.step, self.steps, self.started = step, {step.key: step}, started
        self._first: _Report | None = None
        self._latest: _Report | None = None

    def report(self, now: float, share: float) -> None:
        """Notes what share is done; one that falls begins another part of the work."""
        if self._latest is None or share < self._latest.share:
            self._first = _Report(now, share)
        self._latest = _Report(now, share)

    @property
    def rate(self) -> float:
        """The share that is done each second; 0 before there is a measure."""
        if self._first is None or self._latest is None:
            return 0.0
        seconds, share = self._latest.time - self._first.time, self._latest.share
        if share > self._first.share and seconds > 0.0:
            return (share - self._first.share) / seconds
        return share / max(self._latest.time - self.started, 1e-3)  # of one report

    def left(self, now: float) -> float:
        """Seconds that remain, once there is a rate."""
        assert self._latest is not None
        since = now - self._latest.time
        return max(0.0, (1.0 - self._latest.share) / self.rate - since)


class TimeLeft:
    """The time of the steps of a run that remain.

    Args:
        todo: the steps of a run.
        cost: operations of steps by key, of those that have some.
    """

    def __init__(self, todo: Mapping[str, Step], cost: Mapping[str, float]) -> None:
        self._cost = cost
        self._waiting: defaultdict[_Unit, float] = defaultdict(float)
        self._slow: dict[_Unit, bool] = {}
        self._work: defaultdict[_Unit, float] = defaultdict(float)
        self._seconds: defaultdict[_Unit, float] = defaultdict(float)
        for step in todo.values():
            self.add(step)
            self._slow[self._unit(step)] = step.kind.needs_torch

    def add(self, step: Step) -> None:
        """The step waits for its turn."""
        self._waiting[self._unit(step)] += self._work_of(step)

    def remove(self, step: Step) -> None:
        """The step has started, or is never run."""
        self._waiting[self._unit(step)] -= self._work_of(step)

    def finished(self, step: Step, seconds: float) -> None:
        """The step took so long; of a fused step its share."""
        self._work[self._unit(step)] += self._work_of(step)
        self._seconds[self._unit(step)] += seconds

    def estimate(self, underway: Sequence[Underway], now: float) -> Estimate | None:
        """The time left; None if nothing has been measured.

        As many steps run side by side until the end as do now.
        """
        speeds = self._speeds(underway, now)
        if not speeds:
            return None
        lines = [self._line(line, speeds, now) for line in underway]
        total = sum(line.seconds for line in lines)
        is_bound = any(line.is_bound for line in lines)
        for unit, work in self._waiting.items():
            if work > 1e-6:
                each = self._time(unit, work, speeds)
                total, is_bound = total + each.seconds, is_bound or each.is_bound
        longest = max((line.seconds for line in lines), default=0.0)
        return Estimate(max(total / max(1, len(lines)), longest), is_bound)

    def _speeds(self, underway: Sequence[Underway], now: float) -> dict[_Unit, float]:
        """Work done a second, running steps included; that of all operations under no kind."""
        work, seconds = dict(self._work), dict(self._seconds)
        for line in underway:
            if line.rate:
                unit, spent = self._unit(line.step), now - line.started
                done = spent * line.rate * self._work_of_line(line)
                work[unit] = work.get(unit, 0.0) + done
                seconds[unit] = seconds.get(unit, 0.0) + spent
        measured = [unit for unit in work if work[unit] and seconds[unit]]
        costly = [unit for unit in measured if unit.in_operations]
        speeds = {unit: work[unit] / seconds[unit] for unit in measured}
        if costly:
            spent = sum(seconds[unit] for unit in costly)
            speeds[_ANY] = sum(work[unit] for unit in costly) / spent
        return speeds

    def _line(self, line: Underway, speeds: Mapping[_Unit, float], now: float) -> Estimate:
        if line.rate:
            return Estimate(line.left(now), False)
        work = self._work_of_line(line)
        seconds, is_bound = self._time(self._unit(line.step), work, speeds)
        return Estimate(max(0.0, seconds - (now - line.started)), is_bound)

    def _time(self, unit: _Unit, work: float, speeds: Mapping[_Unit, float]) -> Estimate:
        speed = speeds.get(unit) or (speeds.get(_ANY) if unit.in_operations else None)
        return Estimate(work / speed, False) if speed else Estimate(0.0, self._slow[unit])

    def _work_of_line(self, line: Underway) -> float:
        return sum(map(self._work_of, list(line.steps.values())))  # another thread may end some

    def _unit(self, step: Step) -> _Unit:
        return _Unit(step.kind.name, step.key in self._cost)

    def _work_of(self, step: Step) -> float:
        return self._cost.get(step.key, 1.0)


_ANY = _Unit("", True)
