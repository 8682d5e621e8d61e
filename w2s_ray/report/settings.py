"""The settings of a study: cells that differ only in their seeds, and the units that vary.

With ``select`` only the chosen cells count, and what was chosen over (rates, epochs) is no longer
part of a setting: it may differ from seed to seed.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from w2s_ray.report.selected import chosen_over, shown
from w2s_ray.store.axis_columns import AXES

Row = dict[str, Any]
UnitKind = Literal["seed", "weak seed"]

LOSS = ("loss", "loss_parameters")
"""Columns of a loss."""
SEEDS = ("study", "seed", "weak_seed")
"""Columns in which the cells of a setting differ."""


@dataclass(frozen=True)
class Setting:
    """Cells that differ only in seeds.

    Attributes:
        axes: the values that they share, by column of ``results``.
        rows: of ``results``, one for each cell; unfinished ones among them.
    """

    axes: dict[str, Any]
    rows: tuple[Row, ...]

    @property
    def done(self) -> tuple[Row, ...]:
        """The rows whose student has scores."""
        return tuple(row for row in self.rows if row["status"] == "done")

    @property
    def name(self) -> str:
        """The loss with its parameters, or the control."""
        if self.axes["control"]:
            return str(self.axes["control"])
        parameters = json.loads(self.axes["loss_parameters"] or "{}")
        inside = ", ".join(f"{name} = {value:g}" for name, value in parameters.items())
        return str(self.axes["loss"]) + (f" ({inside})" if inside else "")

    def without(self, *names: str) -> tuple[Any, ...]:
        """The values of all axes but these, to find the setting to compare with."""
        return tuple(value for name, value in self.axes.items() if name not in names)


def settings_of(results: Iterable[Row]) -> list[Setting]:
    """The settings of ``results`` in the order of its rows."""
    rows = list(results)
    over = chosen_over(rows)
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    names = [axis.name for axis in AXES if axis.name not in (*SEEDS, *over)]
    for row in shown(rows):
        groups[tuple(row[name] for name in names)].append(row)
    return [Setting(dict(zip(names, key, strict=True)), tuple(of)) for key, of in groups.items()]


@dataclass(frozen=True)
class Unit:
    """What is drawn anew: a seed; or a weak model's seed with all students of it."""

    name: int | None
    rows: tuple[Row, ...]


def units(rows: Sequence[Row]) -> tuple[UnitKind, list[Unit]]:
    """The independent units among a setting's rows.

    Where students of one seed have weak models of several seeds, the students of one weak model are
    not independent of each other: they are one unit, whose scores are averaged.
    """
    by_seed: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        by_seed[row["seed"]].append(row)
    if all(len(of) == 1 for of in by_seed.values()):
        return "seed", [Unit(seed, tuple(of)) for seed, of in sorted(by_seed.items())]
    by_weak: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        by_weak[row["weak_key"]].append(row)
    return "weak seed", [Unit(of[0]["weak_seed"], tuple(of)) for of in by_weak.values()]
