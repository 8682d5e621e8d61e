"""Alternating measurements of two sides, and their summary: a ratio per round, median and spread.

A ratio of two times taken seconds apart in one run is meaningful on any machine, however busy; a
single time is not. Counts need no rounds: they are the same every time.
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
        name: short and stable; the row replaces an earlier one of the same name.
        measure: what is compared, for display.
        against: what it is compared with, for display.
        values: the figure of each round; one value for a count.
        target: the required figure; None if there is no requirement.
        at_least: whether larger is better.
        unit: "×" for a ratio.
        counted: the figure is a count, the same in every run.
        note: what a reader has to know to judge the figure.
        rounds: the measurements of each round (seconds or rates), by side.
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
        """Plain values from which ``Row(**…)`` restores the row."""
        return asdict(self)


def alternate(
    rounds: int, ours: Callable[[], float], other: Callable[[], float]
) -> list[dict[str, float]]:
    """Call ours, the other, ours, the other, …; one entry with both results per round."""
    return [{"ours": ours(), "other": other()} for _ in range(rounds)]


def times_faster(rounds: Sequence[dict[str, float]]) -> list[float]:
    """Seconds of the other divided by seconds of ours, for each round."""
    return [entry["other"] / entry["ours"] for entry in rounds]


def share(rounds: Sequence[dict[str, float]]) -> list[float]:
    """Ours divided by the other, for each round: of rates, or of seconds that have a limit."""
    return [entry["ours"] / entry["other"] for entry in rounds]


@dataclass
class Stopwatch:
    """The seconds that the block of ``stopwatch()`` took, set when the block ends."""

    seconds: float = 0.0


@contextmanager
def stopwatch() -> Iterator[Stopwatch]:
    """Measure the time of a block."""
    watch = Stopwatch()
    started = time.perf_counter()
    yield watch
    watch.seconds = time.perf_counter() - started
