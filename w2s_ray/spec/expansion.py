"""The grid's cells: the product of the axes, plus the products in ``include``, minus ``exclude``.

Cells come in a stable order: first the product, with axes nested in the order of ``schema.AXES``
(data outermost, seed innermost), then each ``include`` entry in the same nesting. ``exclude``
applies to both and compares values as written (a loss given by name alone matches all its
parameters). An ``exclude`` entry that matches nothing is an error, and so is a duplicate cell.
``null`` on an axis is then replaced by the value in ``training``, so a cell is self-contained.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

from w2s_ray.errors import InputError
from w2s_ray.spec.fields import Trainable
from w2s_ray.spec.schema import AXES, Cells, Form, Grid, Loss, Spec

Values = tuple[Any, ...]
"""One value per axis, as written."""


@dataclass(frozen=True, slots=True)
class CellPoint:
    """One point of the grid: a student, its label noise, and how it and its ceiling are trained."""

    data: str
    weak: str
    strong: str
    weak_seed: int
    loss: str
    loss_parameters: tuple[tuple[str, float], ...]
    confidence_weight: float
    confidence_warmup: float
    confidence_form: Form
    label_temperature: float
    noise_ratio: float
    noise_strength: float
    train_rows: int | None
    trainable: Trainable
    readout_block: int | None
    learning_rate: float
    weight_decay: float
    anchor: float
    epochs: int
    batch_size: int
    seed: int


class GridError(InputError):
    """A mistake in the grid as a whole, located at ``place`` of the spec."""

    def __init__(self, message: str, *place: int | str) -> None:
        super().__init__(message, place)


class _Point(NamedTuple):
    """A point of the grid and the ``include`` entry it comes from; None: the product."""

    include: int | None
    values: Values


class _Exclusion(NamedTuple):
    """An ``exclude`` entry as sets of values to look up.

    Attributes:
        allowed: position of an axis in ``AXES`` and the values that match, except for the loss.
        losses: losses that match; none: every loss.
    """

    allowed: tuple[tuple[int, frozenset[Any]], ...]
    losses: tuple[Loss, ...]

    def matches(self, values: Values) -> bool:
        """Whether ``values`` has, on every axis of the entry, one of its values."""
        if not all(values[position] in allowed for position, allowed in self.allowed):
            return False
        loss: Loss = values[_LOSS]
        return not self.losses or any(part.covers(loss) for part in self.losses)


_LOSS = AXES.index("loss")


def expand(spec: Spec) -> list[CellPoint]:
    """All cells of a spec, in a stable order, each once.

    Raises:
        GridError: a duplicate cell (both origins are named), an ``exclude`` entry that removes
            nothing, or a grid without cells.
    """
    grid = spec.grid
    axes = {axis: getattr(grid, axis) for axis in AXES}
    axes["data"] = grid.data or tuple(spec.data)
    exclusions = [_exclusion(entry) for entry in grid.exclude]
    unused = set(range(len(exclusions)))
    cells: dict[CellPoint, _Point] = {}
    for point in _points(axes, grid.include):
        matched = [n for n, entry in enumerate(exclusions) if entry.matches(point.values)]
        unused.difference_update(matched)
        if matched:
            continue
        cell = _cell(spec, point.values)
        if cell in cells:
            raise _duplicate(cells[cell], point)
        cells[cell] = point
    if unused:
        first = min(unused)
        message = "given an entry that matches no cell, expected one that removes some"
        raise GridError(f"grid.exclude[{first}]: {message}", "grid", "exclude", first)
    if not cells:
        raise GridError("grid: given a grid without cells, expected at least one", "grid")
    return list(cells)


def _points(axes: dict[str, Values], include: tuple[Cells, ...]) -> Iterator[_Point]:
    """Every point before ``exclude``."""
    for values in product(*axes.values()):
        yield _Point(None, values)
    for position, entry in enumerate(include):
        for values in product(*(getattr(entry, axis) or axes[axis] for axis in AXES)):
            yield _Point(position, values)


def _exclusion(entry: Cells) -> _Exclusion:
    allowed = tuple(
        (position, frozenset(getattr(entry, axis)))
        for position, axis in enumerate(AXES)
        if axis != "loss" and getattr(entry, axis)
    )
    return _Exclusion(allowed, entry.loss)


def _cell(spec: Spec, values: Values) -> CellPoint:
    axes = dict(zip(AXES, values, strict=True))
    weak, strong = axes.pop("pair")
    loss, training = axes.pop("loss"), spec.training
    if axes["learning_rate"] is None:
        axes["learning_rate"] = getattr(training.learning_rate, axes["trainable"])
    if axes["weak_seed"] is None:
        axes["weak_seed"] = axes["seed"] if training.weak_seed is None else training.weak_seed
    for axis in ("epochs", "batch_size"):
        axes[axis] = axes[axis] or getattr(training, axis)
    return CellPoint(
        weak=weak, strong=strong, loss=loss.name, loss_parameters=loss.parameters, **axes
    )


def _duplicate(first: _Point, second: _Point) -> GridError:
    """The error for two points that are one cell, showing both as written.

    Axes that are at their default in both points are omitted.
    """
    axes = [
        axis
        for axis, *values in zip(AXES, first.values, second.values, strict=True)
        if any((value,) != Grid.model_fields[axis].default for value in values)
    ]
    message = (
        f"given the same cell twice, {_described(first, axes)} and {_described(second, axes)}, "
        "expected it once"
    )
    place = () if second.include is None else ("include", second.include)
    return GridError(f"grid: {message}", "grid", *place)


def _described(point: _Point, axes: list[str]) -> str:
    origin = "the product" if point.include is None else f"include[{point.include}]"
    values = dict(zip(AXES, point.values, strict=True))
    return f"in {origin} ({', '.join(f'{axis}: {_shown(values[axis])}' for axis in axes)})"


def _shown(value: Any) -> str:
    if isinstance(value, Loss):
        value = value.model_dump() if value.model_extra else value.name
    return "null" if value is None else str(value).replace("'", "")
