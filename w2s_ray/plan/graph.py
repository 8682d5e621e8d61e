"""What is to be computed: steps, cells and the plan that joins them.

A step's *identity* is what it computes (kind, version, configuration, the keys of its inputs); how
it is computed (``execution``: workers, micro-batches, where the files lie) stays outside the key,
so a study finished on a laptop is finished on a cluster too.
"""

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

KINDS = ("prepare", "features", "weak", "label", "ceiling", "student", "evaluate")
ENDS = tuple(kind for kind in KINDS if kind != "features")
TRAINED_ON = {"weak": "ground_truth", "ceiling": "ground_truth", "student": "weak"}  # split


@dataclass(frozen=True, slots=True)
class Step:
    """One unit of work with one artifact."""

    kind: str
    key: str
    slug: str  # for people: names the folder, never identifies it
    version: int
    config: Mapping[str, Any]  # JSON values: the whole resolved science configuration
    inputs: Mapping[str, str]  # role -> key of the step that provides it
    execution: Mapping[str, Any] = field(default_factory=dict)  # never part of the key


@dataclass(frozen=True, slots=True)
class Cell:
    """One point of the grid: its values, and the keys of the steps that answer it."""

    values: Mapping[str, Any]
    keys: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        """The form that the store keeps, from which results are rebuilt."""
        return {"cell": dict(self.values), "keys": dict(self.keys)}


@dataclass(frozen=True, slots=True)
class Plan:
    """All steps of a study, unique by key, every step after its inputs."""

    study: str
    steps: Mapping[str, Step]
    cells: tuple[Cell, ...]

    def count(self) -> dict[str, int]:
        """Steps by kind, in the order of the way of the data."""
        counts = Counter(step.kind for step in self.steps.values())
        return {kind: counts[kind] for kind in KINDS if counts[kind]}

    def naive_steps(self) -> int:
        """Steps that the grid would need if no two cells shared any: each cell alone needs its
        models, their scores, and all that these rest on."""
        sizes: dict[frozenset[str], int] = {}
        total = 0
        for cell in self.cells:
            own = {cell.keys["student"], cell.keys["student_evaluate"]}
            rest = frozenset(cell.keys.values()) - own
            rest |= frozenset(self.steps[cell.keys["student"]].inputs.values())
            if rest not in sizes:
                sizes[rest] = self._closure_size(rest)
            total += sizes[rest] + len(own)
        return total

    def _closure_size(self, keys: Iterable[str]) -> int:
        seen, stack = set(keys), list(keys)
        while stack:
            for parent in self.steps[stack.pop()].inputs.values():
                if parent not in seen:
                    seen.add(parent)
                    stack.append(parent)
        return len(seen)

    def todo(self, finished: Container[str]) -> dict[str, Step]:
        """The steps still to be run, in order.

        Everything that results are read from is an end of the study. Features are only means:
        they are made again if something unfinished rests on them, and not otherwise.
        """
        needed = {step.key for step in self if step.kind in ENDS and step.key not in finished}
        for step in reversed(list(self)):
            if step.key in needed:
                needed.update(key for key in step.inputs.values() if key not in finished)
        return {key: step for key, step in self.steps.items() if key in needed}

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps.values())
