"""What ``validation``, ``select`` and ``training.evaluations`` ask of the rest of a spec."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from w2s_ray.spec.fields import Mistake, mistake
from w2s_ray.spec.inputs import DataSpec
from w2s_ray.spec.selection import Select, Validation
from w2s_ray.spec.training import Training


@dataclass(frozen=True)
class Selection:
    """The parts of a spec that must agree.

    Attributes:
        values: of each axis of the grid that can be chosen over, anywhere in the grid.
    """

    data: Mapping[str, DataSpec]
    training: Training
    validation: Validation | None
    select: Select | None
    values: Mapping[str, Collection[Any]]

    def mistakes(self) -> Iterator[Mistake]:
        """Every contradiction, the most basic first."""
        yield from self._of_validation()
        yield from self._of_evaluations()
        yield from self._of_select()

    def _of_validation(self) -> Iterator[Mistake]:
        if self.validation is None:
            return
        rows = self.validation.rows
        for name, data in self.data.items():
            size = data.sizes.weak
            if size is not None and rows >= size:
                text = f"less than {size:,}, the size of the split weak of data {name!r}"
                yield ("validation", "rows"), rows, mistake(text)

    def _of_evaluations(self) -> Iterator[Mistake]:
        count, solver = self.training.evaluations, self.training.solver
        if count == 1:
            return
        place = ("training", "evaluations")
        if solver != "sgd":
            yield place, count, mistake(f"1 with solver: {solver}, which has no optimizer steps")
        if self.validation is None:
            text = "1 without validation (there are no rows to evaluate steps on)"
            yield place, count, mistake(text)

    def _of_select(self) -> Iterator[Mistake]:
        select = self.select
        if select is None:
            return
        if self.validation is None:
            text = "validation: {rows: …} beside it, rows to choose by"
            yield ("select",), select.by, mistake(text)
            return
        if select.by == "ground_truth" and self.validation.labels == "weak":
            text = (
                "validation.labels: ground_truth with it (true labels that a weak supervisor lacks)"
            )
            yield ("select", "by"), select.by, mistake(text)
        tested = [name for name, data in self.data.items() if data.tests]
        if "step" in select.over and tested:
            text = (
                f"no step beside tests of data {tested[0]!r}: models keep the weights of their last"
                " step only, which is the one that further test sets are scored with"
            )
            yield ("select", "over"), "step", mistake(text)
        if "step" in select.over and self.training.evaluations == 1:
            text = "training.evaluations above 1 with step, or there is one step to choose from"
            yield ("select", "over"), "step", mistake(text)
        for axis in select.cells:
            if len(self.values[axis]) < 2:
                text = (
                    f"two or more values of grid.{axis} with it, or there is nothing to choose "
                    "from (select: null chooses nothing)"
                )
                yield ("select", "over"), axis, mistake(text)
