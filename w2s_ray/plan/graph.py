"""What is to be computed: the cells of a study, and the plan of steps that answer them."""

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from w2s_ray.plan.kinds import KINDS
from w2s_ray.plan.step import Step


@dataclass(frozen=True, slots=True)
class Cell:
    """One point of the grid: its values, and the keys of the steps that answer it.

    Attributes:
        keys: role → key.
        tests: name of a further test set → role → key of the steps that score the models on it.
    """

    values: Mapping[str, Any]
    keys: Mapping[str, str]
    tests: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The form that the store keeps, from which results are rebuilt."""
        tests = {name: dict(keys) for name, keys in self.tests.items()}
        return {
            "cell": dict(self.values),
            "keys": dict(self.keys),
            **({"tests": tests} if tests else {}),
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """All steps of a study, unique by key, every step after its inputs.

    Attributes:
        select: the section ``select`` of the spec, as JSON values; None: there is none.
        task: of the spec: what a cell's student gives, classes (soft labels) or texts.
    """

    study: str
    steps: Mapping[str, Step]
    cells: tuple[Cell, ...]
    select: Mapping[str, Any] | None = None
    task: Literal["soft_labels", "generation"] = "soft_labels"

    def count(self) -> dict[str, int]:
        """Steps by kind, in the order in which data flow."""
        counts = Counter(step.kind.name for step in self.steps.values())
        return {name: counts[name] for name in (*KINDS, *counts) if counts[name]}

    def cells_sharing_students(self) -> int:
        """Cells whose student another cell before them has: an axis has no effect there."""
        return len(self.cells) - len({cell.keys["student"] for cell in self.cells})

    def naive_steps(self) -> int:
        """Steps that the grid would need if no two cells shared any: each cell alone needs its
        models, their scores, and all the inputs of these."""
        sizes: dict[frozenset[str], int] = {}
        total = 0
        for cell in self.cells:
            own = {cell.keys["student"], cell.keys["student_evaluate"]}
            all_of_cell = set(cell.keys.values())
            for keys in cell.tests.values():
                own |= {keys["student_predict"], keys["student_evaluate"]}
                all_of_cell |= set(keys.values())
            rest = frozenset(all_of_cell - own)
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

    def todo(self, finished: Container[str], asked: Iterable[str] = ()) -> dict[str, Step]:
        """The steps still to be run, in order.

        Unfinished ends (``Kind.is_end``) are needed, and whatever unfinished step they need. So
        features that are gone are computed again only for an unfinished step, or if they are
        ``asked`` for.
        """
        needed = {step.key for step in self if step.kind.is_end and step.key not in finished}
        needed.update(key for key in asked if key not in finished)
        for step in reversed(list(self)):
            if step.key in needed:
                needed.update(key for key in step.inputs.values() if key not in finished)
        return {key: step for key, step in self.steps.items() if key in needed}

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps.values())
