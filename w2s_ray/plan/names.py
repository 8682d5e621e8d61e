"""Names of steps and cells for people: what differs in this study, and nothing else.

``Step.slug`` names a folder of a store that many studies share, so it begins with what most steps
of a study have in common and leaves out most axes. Here a step is named by the axes that vary in
its study, as far as all cells that need it agree: ``reverse_kl noise=0.4 rate=0.001 seed=2``.
"""

import shlex
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from w2s_ray.plan.graph import Cell, Plan

SHORTER = {
    "noise_ratio": "noise",
    "confidence_weight": "confidence",
    "confidence_warmup": "warmup",
    "label_temperature": "temperature",
    "learning_rate": "rate",
    "learning_rate_factor": "lr",
    "train_rows": "rows",
    "readout_block": "block",
}
_OPEN = object()  # on this axis, the cells of a step differ


def step_names(plan: Plan) -> dict[str, str]:
    """The name of every step by key: no two of one kind are the same, and none is empty."""
    axes = varying(plan.cells)
    agreed: dict[str, list[Any]] = {}
    for cell in plan.cells:
        values = [cell.values.get(axis) for axis in axes]
        for key in _needed(cell):
            known = agreed.setdefault(key, list(values))
            for at, value in enumerate(values):
                if known[at] is not value and known[at] != value:
                    known[at] = _OPEN
    names = {
        step.key: " ".join(_words(zip(axes, agreed.get(step.key, ()), strict=False)))
        for step in plan
    }
    shared = Counter((step.kind.name, names[step.key]) for step in plan)
    for step in plan:
        name = names[step.key]
        if not name or shared[step.kind.name, name] > 1:
            names[step.key] = f"{name} {step.slug}".lstrip()
    again = Counter((step.kind.name, names[step.key]) for step in plan)
    for step in plan:
        if again[step.kind.name, names[step.key]] > 1:
            names[step.key] += f"-{step.key[:8]}"
    return names


def cell_name(cell: Cell, axes: Collection[str]) -> str:
    """The values of a cell on the axes that vary; "" where none does."""
    return " ".join(_words((axis, cell.values.get(axis)) for axis in axes))


def cells_named(words: str, plan: Plan) -> list[Cell]:
    """The cells that have every word of a name, as ``reverse_kl seed=2``.

    A word is ``axis=value``, with the axis as in the spec or as names show it, or a value alone;
    numbers are compared as numbers, so that 1e30 and 1.0e+30 are one.
    """
    try:
        wanted = {_comparable(word) for word in shlex.split(words.replace(",", " "))}
    except ValueError:  # an open quotation mark
        return []
    return [cell for cell in plan.cells if wanted and wanted <= _all_words(cell)]


def varying(cells: Sequence[Cell]) -> tuple[str, ...]:
    """The axes on which cells differ, without those that follow another one (``weak_seed``)."""
    values: defaultdict[str, list[str]] = defaultdict(list)
    for cell in cells:
        for axis, value in cell.values.items():
            values[axis].append(str(value))
    seen: set[tuple[str, ...]] = set()
    axes = []
    # An axis goes before the one that follows it: the seed before the weak model's.
    for axis in sorted(values, key=lambda axis: axis == "weak_seed"):
        column = tuple(values[axis])
        if len(set(column)) > 1 and column not in seen:
            seen.add(column)
            axes.append(axis)
    return tuple(axes)


def _needed(cell: Cell) -> Iterator[str]:
    yield from dict.fromkeys(cell.keys.values())
    for keys in cell.tests.values():
        yield from keys.values()


def _words(values: Any) -> Iterator[str]:
    for axis, value in values:
        yield from _word(axis, value)


def _word(axis: str, value: Any) -> Iterator[str]:
    if value is _OPEN or value is None or value == "":
        return
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _word(name, each)
    elif isinstance(value, str) and value != "none":
        yield value
    else:
        yield f"{SHORTER.get(axis, axis)}={_shown(value)}"


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _all_words(cell: Cell) -> set[str]:
    words = {*_words(cell.values.items())}
    for axis, value in cell.values.items():
        for name in (axis, SHORTER.get(axis, axis)):
            words |= {f"{name}={_shown(value)}", f"{name}={value}"}
    return {_comparable(word) for word in words}


def _comparable(word: str) -> str:
    axis, equals, value = word.rpartition("=")
    try:
        return f"{axis}{equals}{float(value)!r}"
    except ValueError:
        return word
