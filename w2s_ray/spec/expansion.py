"""The grid's cells: the product of the axes, and the sub-products of `include`, minus `exclude`.

Cells come in a stable order: the product first, axes nested in the order of `schema.AXES` (data
outermost, seed fastest), then each `include` entry in the same nesting. `exclude` is applied to
both, to values as they are written (a loss by name stands for all its parameters); an entry that
matches nothing is a mistake, and so is a cell that comes twice, since one of the two would be
a silent copy. `null` on an axis then becomes training's value, so a cell says all it needs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from w2s_ray.errors import InputError
from w2s_ray.spec.fields import Trainable
from w2s_ray.spec.schema import AXES, Cells, Form, Grid, Loss, Spec

Values = tuple[Any, ...]  # one value an axis, as written
Written = tuple[str, Values]  # and where: the product, or include[i]


@dataclass(frozen=True, slots=True)
class CellPoint:
    """One point of the grid; a student, its noise and how student and ceiling are trained."""

    data: str
    weak: str
    strong: str
    loss: str
    loss_parameters: tuple[tuple[str, float], ...]
    confidence_weight: float
    confidence_warmup: float
    confidence_form: Form
    noise_ratio: float
    noise_strength: float
    trainable: Trainable
    learning_rate: float
    epochs: int
    batch_size: int
    seed: int


class GridError(InputError):
    """A mistake in the grid as a whole; `place` is where in the spec, for its line."""

    def __init__(self, message: str, *place: int | str) -> None:
        super().__init__(message, place)


def expand(spec: Spec) -> list[CellPoint]:
    """All cells of a spec, in stable order, each once.

    Raises `GridError` for a cell that comes twice (both places are named), an `exclude` entry
    that removes nothing, and a grid without cells.
    """
    grid = spec.grid
    axes = {axis: getattr(grid, axis) for axis in AXES}
    axes["data"] = grid.data or tuple(spec.data)
    removes = [_matcher(entry) for entry in grid.exclude]
    unused = set(range(len(removes)))
    cells: dict[CellPoint, Written] = {}
    for written in _points(axes, grid.include):
        values = written[1]
        matched = [position for position, matches in enumerate(removes) if matches(values)]
        unused.difference_update(matched)
        if matched:
            continue
        cell = _cell(spec, values)
        if cell in cells:
            raise _twice(cells[cell], written)
        cells[cell] = written
    if unused:
        first = min(unused)
        message = "given an entry that matches no cell, expected one that removes some"
        raise GridError(f"grid.exclude[{first}]: {message}", "grid", "exclude", first)
    if not cells:
        raise GridError("grid: given a grid without cells, expected at least one", "grid")
    return list(cells)


def _points(axes: dict[str, Values], include: tuple[Cells, ...]) -> Iterator[Written]:
    """Every point before `exclude`."""
    for values in product(*axes.values()):
        yield "the product", values
    for position, entry in enumerate(include):
        for values in product(*(getattr(entry, axis) or axes[axis] for axis in AXES)):
            yield f"include[{position}]", values


def _matcher(entry: Cells) -> Callable[[Values], bool]:
    """Whether a point has, on every axis that the entry names, one of the values named there."""
    named = [
        (position, frozenset(getattr(entry, axis)))
        for position, axis in enumerate(AXES)
        if axis != "loss" and getattr(entry, axis)
    ]
    at_loss, losses = AXES.index("loss"), entry.loss

    def matches(values: Values) -> bool:
        if not all(values[position] in allowed for position, allowed in named):
            return False
        loss: Loss = values[at_loss]
        return not losses or any(part.covers(loss) for part in losses)

    return matches


def _cell(spec: Spec, values: Values) -> CellPoint:
    data, (weak, strong), loss, weight, warmup, form, ratio, strength, trainable, *rest = values
    rate, epochs, batch_size, seed = rest
    training = spec.training
    return CellPoint(
        data,
        weak,
        strong,
        loss.name,
        loss.parameters,
        weight,
        warmup,
        form,
        ratio,
        strength,
        trainable,
        getattr(training.learning_rate, trainable) if rate is None else rate,
        epochs or training.epochs,
        batch_size or training.batch_size,
        seed,
    )


def _twice(first: Written, second: Written) -> GridError:
    """Names both, as they were written, by the axes that are not at their defaults in both."""
    telling = [
        axis
        for axis, *values in zip(AXES, first[1], second[1], strict=True)
        if any((value,) != Grid.model_fields[axis].default for value in values)
    ]

    def told(written: Written) -> str:
        at = dict(zip(AXES, written[1], strict=True))
        return f"in {written[0]} ({', '.join(f'{axis}: {_shown(at[axis])}' for axis in telling)})"

    position = second[0].partition("[")[2].rstrip("]")
    place: tuple[int | str, ...] = ("include", int(position)) if position else ()
    message = f"given one cell twice, {told(first)} and {told(second)}, expected it once"
    return GridError(f"grid: {message}", "grid", *place)


def _shown(value: Any) -> str:
    if isinstance(value, Loss):
        value = value.model_dump() if value.model_extra else value.name
    return "null" if value is None else str(value).replace("'", "")
