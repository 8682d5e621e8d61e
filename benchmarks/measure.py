"""Two things measured alternately, and what is said of them: the ratio of each round, their median
and spread.

A ratio of two times taken seconds apart in one run says something on any machine, however busy;
a time alone does not. Counts need no rounds: they are the same every time.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: short and stable: it replaces the line of an earlier run.
        measure, against: what is compared with what, in words.
        values: the figure of each round; one value for a count.
        target: what issue 4 asks for; None: told, not asked for.
        at_least: whether larger is better.
        unit: "×" for a ratio.
        counted: the figure is a count, the same in every run.
        note: what a reader must know to judge the figure.
        rounds: what was measured in each round (seconds, or rates), by side.
    """

    name: str
    measure: str
    against: str
    values: Sequence[float]
    target: float | None = None
    at_least: bool = True
    unit: str = "×"
    counted: bool = False
    note: str = ""
    rounds: Sequence[dict[str, float]] = field(default_factory=tuple)

    @property
    def figure(self) -> float:
        """The median of the rounds."""
        return median(self.values)

    @property
    def reached(self) -> bool | None:
        """Whether the median meets the target; None without one."""
        if self.target is None:
            return None
        return self.figure >= self.target if self.at_least else self.figure <= self.target

    def as_json(self) -> dict[str, Any]:
        """Plain values, from which ``Row(**…)`` makes the row again."""
        return asdict(self)


def alternate(
    rounds: int, ours: Callable[[], float], other: Callable[[], float]
) -> list[dict[str, float]]:
    """Ours, the other, ours, the other, …: what each call returned, one entry a round."""
    return [{"ours": ours(), "other": other()} for _ in range(rounds)]


def times_faster(rounds: Sequence[dict[str, float]]) -> list[float]:
    """Seconds of the other / seconds of ours, in each round."""
    return [entry["other"] / entry["ours"] for entry in rounds]


def share(rounds: Sequence[dict[str, float]]) -> list[float]:
    """Ours / the other, in each round: of rates, or of seconds where ours may take longer."""
    return [entry["ours"] / entry["other"] for entry in rounds]


@dataclass
class Stopwatch:
    """Seconds that the block of ``stopwatch()`` took, once it is left."""

    seconds: float = 0.0


@contextmanager
def stopwatch() -> Iterator[Stopwatch]:
    """Measures a block."""
    watch = Stopwatch()
    started = time.perf_counter()
    yield watch
    watch.seconds = time.perf_counter() - started
