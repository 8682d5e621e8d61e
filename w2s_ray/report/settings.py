"""The settings of a study: cells that differ only in their seeds, and the units that vary.

With ``select`` only the chosen cells count, and what was chosen over (rates, epochs) is no longer
part of a setting: it may differ from seed to seed.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
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
        same: number of settings with the same students, whose other axes have no effect.
    """

    axes: dict[str, Any]
    rows: tuple[Row, ...]
    same: int = 0

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
    """The settings of ``results`` in the order of its rows.

    Of settings that have the same students (the noise's strength without noise, the rule that
    combines one weak model) the first stands for all.
    """
    rows = list(results)
    over = chosen_over(rows)
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    names = [axis.name for axis in AXES if axis.name not in (*SEEDS, *over)]
    for row in shown(rows):
        groups[tuple(row[name] for name in names)].append(row)
    alike: dict[tuple[Any, ...], list[Setting]] = defaultdict(list)
    for key, of in groups.items():
        models = tuple((row["key"], row["weak_key"], row["control"]) for row in of)
        is_planned = all(row["key"] and row["weak_key"] for row in of)
        setting = Setting(dict(zip(names, key, strict=True)), tuple(of))
        alike[models if is_planned else key].append(setting)
    return [replace(first, same=len(others)) for first, *others in alike.values()]


@dataclass(frozen=True)
class Unit:
    """What is drawn anew: a seed; or a weak model's seed with all students of it."""

    name: int | None
    rows: tuple[Row, ...]


def units(rows: Sequence[Row]) -> tuple[UnitKind, list[Unit]]:
    """The independent units among a setting's rows.

    Where there are several weak models, students of one of them are not independent of each other:
    they are one unit, whose scores are averaged. So are students of one seed with several weak
    models, but they are in different units: see ``shares_seeds``.
    """
    by_seed: dict[Any, list[Row]] = defaultdict(list)
    by_weak: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        by_seed[row["seed"]].append(row)
        by_weak[row["weak_key"]].append(row)
    has_own_weak_model = len(by_weak) in (1, len(rows))
    if has_own_weak_model and all(len(of) == 1 for of in by_seed.values()):
        return "seed", [Unit(seed, tuple(of)) for seed, of in sorted(by_seed.items())]
    return "weak seed", [Unit(of[0]["weak_seed"], tuple(of)) for of in by_weak.values()]


def factors(kind: UnitKind, of: Sequence[Unit]) -> list[Sequence[Unit]]:
    """What is drawn anew: the units, and the students' seeds where weak models have the same."""
    crossed = _crossed_seeds(of) if kind == "weak seed" else []
    return [of, crossed] if crossed else [of]


def shares_seeds(of: Sequence[Unit]) -> bool:
    """Whether students of several units have one seed, and nothing says how much seeds do."""
    seeds = [{row["seed"] for row in unit.rows} for unit in of]
    return len(set().union(*seeds)) < sum(map(len, seeds)) and not _crossed_seeds(of)


def _crossed_seeds(of: Sequence[Unit]) -> list[Unit]:
    """The students' seeds as units, where each weak model has students of the same several ones."""
    by_seed: dict[Any, list[Row]] = defaultdict(list)
    for unit in of:
        for row in unit.rows:
            by_seed[row["seed"]].append(row)
    is_crossed = len(by_seed) > 1 and all(len(rows) == len(of) for rows in by_seed.values())
    return [Unit(seed, tuple(rows)) for seed, rows in by_seed.items()] if is_crossed else []
