"""The grid's cells: the product of the axes, plus the products in ``include``, minus ``exclude``.

Cells come in a stable order: first the product, with axes nested in the order of ``schema.AXES``
(data outermost, seed innermost), then each ``include`` entry in the same nesting. Pairs and chains
are one axis (``chains``), and a cell that a chain brings with it may be written too. ``exclude``
applies to both and compares values as written (a loss given by name alone matches all its
parameters). An ``exclude`` entry that matches nothing is an error, and so is a duplicate cell.
``null`` on an axis is then replaced by the value in ``training``, so a cell is self-contained.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, Literal, NamedTuple

from w2s_ray.errors import InputError
from w2s_ray.foreign.limits import exceeded, limit
from w2s_ray.spec.chains import LINKS, MEMBERS, Chain, all_chains, written_chains
from w2s_ray.spec.controls import Control
from w2s_ray.spec.fields import Combine, Trainable
from w2s_ray.spec.grid import Form
from w2s_ray.spec.labels import ExampleWeight, FilterOrNone, LabelFilter, Relabel
from w2s_ray.spec.schema import AXES as WRITTEN_AXES
from w2s_ray.spec.schema import Cells, Grid, Loss, Spec

AXES = tuple(axis for axis in WRITTEN_AXES if axis != "chain")  # which is on the axis ``pair``
LEARNED_FROM = 3  # models: of two that differ, nothing tells which one is wrong

Values = tuple[Any, ...]
"""One value per axis, as written; of ``pair`` a ``Chain``."""


@dataclass(frozen=True, slots=True)
class CellPoint:
    """One point of the grid: a student, its label noise, and how it and its ceiling are trained.

    Attributes:
        weak: name of the weak model; ``a+b+c`` of an ensemble.
        chain: ``m1>m2>m3`` for the last student of a chain; "" for a pair.
        control: what stands in the place of the student; "" for a student of the grid.
    """

    data: str
    weak: str
    strong: str
    chain: str
    combine: Combine
    weak_seed: int
    loss: str
    loss_parameters: tuple[tuple[str, float], ...]
    confidence_weight: float
    confidence_warmup: float
    confidence_form: Form
    label_temperature: float
    label_filter: FilterOrNone
    label_keep: float
    relabel: Relabel
    example_weight: ExampleWeight
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
    control: Control | Literal[""] = ""

    @property
    def members(self) -> tuple[str, ...]:
        """The weak models: one, or those of an ensemble."""
        return tuple(self.weak.split(MEMBERS))

    @property
    def students(self) -> tuple[str, ...]:
        """The models that learn, one from the other; the last is ``strong``."""
        return tuple(self.chain.split(LINKS)[1:]) if self.chain else (self.strong,)


class GridError(InputError):
    """A mistake in the grid as a whole, located at ``place`` of the spec."""

    def __init__(self, message: str, *place: int | str) -> None:
        super().__init__(message, place)


class _Point(NamedTuple):
    """A point of the grid and the ``include`` entry it comes from; None: the product.

    Attributes:
        written: whether the grid names its pair or chain; if not, a longer chain brings it.
    """

    include: int | None
    values: Values
    written: bool


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


_LOSS, _PAIR = AXES.index("loss"), AXES.index("pair")


def expand(spec: Spec) -> list[CellPoint]:
    """All cells of a spec, in a stable order, each once.

    Raises:
        GridError: more cells than the limit, a duplicate cell (both origins are named), an
            ``exclude`` entry that removes nothing, weights to be learned of two models, or a grid
            without cells.
    """
    grid = spec.grid
    axes = {axis: getattr(grid, axis) for axis in AXES}
    axes["data"] = grid.data or tuple(spec.data)
    exclusions = [_exclusion(entry) for entry in grid.exclude]
    unused = set(range(len(exclusions)))
    cells: dict[CellPoint, _Point] = {}
    _check_size(axes, grid)
    for point in _points(axes, grid):
        matched = [n for n, entry in enumerate(exclusions) if entry.matches(point.values)]
        unused.difference_update(matched)
        if matched:
            continue
        cell = _cell(spec, point.values)
        first = cells.get(cell)
        if first is not None and first.written and point.written:
            raise _duplicate(first, point)
        if first is None or point.written:
            cells[cell] = point
            _check_learned(cell)
    if unused:
        entry = min(unused)
        message = "given an entry that matches no cell, expected one that removes some"
        raise GridError(f"grid.exclude[{entry}]: {message}", "grid", "exclude", entry)
    if not cells:
        raise GridError("grid: given a grid without cells, expected at least one", "grid")
    return list(cells)


def _check_size(axes: dict[str, Values], grid: Grid) -> None:
    """Refuses a product, or products, of more cells than the limit, before any is made."""
    lengths = {axis: len(values) for axis, values in axes.items()}
    lengths["pair"] = len(all_chains(grid))
    parts: list[tuple[tuple[int | str, ...], dict[str, int]]] = [(("grid",), lengths)]
    for position, entry in enumerate(grid.include):
        own = {axis: len(getattr(entry, axis)) for axis in AXES}
        own["pair"] = len(all_chains(entry))
        sizes = {axis: own[axis] or length for axis, length in lengths.items()}
        parts.append((("grid", "include", position), sizes))
    cells = 0
    for place, sizes in parts:
        cells += prod(sizes.values())
        if cells > limit("grid.cells"):
            product = " × ".join(f"{axis} {size:,}" for axis, size in sizes.items() if size > 1)
            field = "grid" if len(place) == 1 else f"grid.include[{place[-1]}]"
            given = f"{cells:,} cells" + (" in all" if len(place) > 1 else "")
            text = exceeded("grid.cells", f"{given} ({product})")
            raise GridError(f"{field}: {text}", *place)


def _points(axes: dict[str, Values], grid: Grid) -> Iterator[_Point]:
    """Every point before ``exclude``."""
    chains = all_chains(grid)
    axes = {**axes, "pair": tuple(chains)}
    for values in product(*axes.values()):
        yield _Point(None, values, chains[values[_PAIR]])
    for position, entry in enumerate(grid.include):
        own = all_chains(entry) or chains
        given = {axis: getattr(entry, axis) or axes[axis] for axis in AXES}
        for values in product(*{**given, "pair": tuple(own)}.values()):
            yield _Point(position, values, own[values[_PAIR]])


def _exclusion(entry: Cells) -> _Exclusion:
    values = {axis: getattr(entry, axis) for axis in AXES if axis != "loss"}
    values["pair"] = written_chains(entry)
    allowed = tuple((AXES.index(axis), frozenset(given)) for axis, given in values.items() if given)
    return _Exclusion(allowed, entry.loss)


def _cell(spec: Spec, values: Values) -> CellPoint:
    axes = dict(zip(AXES, values, strict=True))
    chain: Chain = axes.pop("pair")
    loss, training = axes.pop("loss"), spec.training
    kept: LabelFilter | None = axes.pop("label_filter")
    if axes["learning_rate"] is None:
        axes["learning_rate"] = getattr(training.learning_rate, axes["trainable"])
    if axes["weak_seed"] is None:
        axes["weak_seed"] = axes["seed"] if training.weak_seed is None else training.weak_seed
    for axis in ("epochs", "batch_size"):
        axes[axis] = axes[axis] or getattr(training, axis)
    return CellPoint(
        weak=chain.weak,
        strong=chain.students[-1],
        chain=chain.column,
        loss=loss.name,
        loss_parameters=loss.parameters,
        label_filter="none" if kept is None else kept.by,
        label_keep=1.0 if kept is None else kept.keep,
        **axes,
    )


def _check_learned(cell: CellPoint) -> None:
    """Refuses to learn the weights of too few models."""
    if cell.combine == "learned" and 1 < len(cell.members) < LEARNED_FROM:
        raise GridError(
            f"grid.combine: given learned with the ensemble {cell.weak}, expected {LEARNED_FROM} "
            "or more models: the agreement of two does not tell which one is wrong",
            "grid",
            "combine",
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
    elif isinstance(value, LabelFilter):
        value = value.model_dump()
    return "null" if value is None else str(value).replace("'", "")
