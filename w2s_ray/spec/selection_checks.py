"""What ``validation``, ``select`` and ``training.evaluations`` ask of the rest of a spec."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from w2s_ray.spec.fields import Mistake, mistake

if TYPE_CHECKING:
    from w2s_ray.spec.schema import Spec


def selection_mistakes(spec: "Spec") -> Iterator[Mistake]:
    """Every contradiction between these sections and the others, the most basic first."""
    yield from _mistakes_in_validation(spec)
    yield from _mistakes_in_evaluations(spec)
    yield from _mistakes_in_select(spec)


def _mistakes_in_validation(spec: "Spec") -> Iterator[Mistake]:
    if spec.validation is None:
        return
    rows = spec.validation.rows
    for name, data in spec.data.items():
        size = data.sizes.weak
        if size is not None and rows >= size:
            text = f"less than {size:,}, the size of the split weak of data {name!r}"
            yield ("validation", "rows"), rows, mistake(text)


def _mistakes_in_evaluations(spec: "Spec") -> Iterator[Mistake]:
    count, solver = spec.training.evaluations, spec.training.solver
    if count == 1:
        return
    place = ("training", "evaluations")
    if solver != "sgd":
        yield place, count, mistake(f"1 with solver: {solver}, which has no optimizer steps")
    if spec.validation is None:
        yield place, count, mistake("1 without validation (there are no rows to evaluate steps on)")


def _mistakes_in_select(spec: "Spec") -> Iterator[Mistake]:
    select, validation = spec.select, spec.validation
    if select is None:
        return
    if validation is None:
        yield ("select",), select.by, mistake("validation: {rows: …} beside it, rows to choose by")
        return
    if select.by == "ground_truth" and validation.labels == "weak":
        text = "validation.labels: ground_truth with it (true labels that a weak supervisor lacks)"
        yield ("select", "by"), select.by, mistake(text)
    if "step" in select.over and spec.training.evaluations == 1:
        text = "training.evaluations above 1 with step, or there is one step to choose from"
        yield ("select", "over"), "step", mistake(text)
    for axis in select.cells:
        parts = [spec.grid, *spec.grid.include]
        values = {value for part in parts for value in getattr(part, axis)}
        if len(values) < 2:
            text = f"two or more values of grid.{axis} with it, or there is nothing to choose from"
            yield ("select", "over"), axis, mistake(text)
