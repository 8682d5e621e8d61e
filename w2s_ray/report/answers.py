"""What a study says: accuracy and recovered gap of each setting, and differences from a baseline.

All numbers are over test rows and seeds (``statistics.decomposition``), rows of one prompt being
one piece of evidence. Nothing is averaged over settings: two settings differ in an axis, and a
reader must see it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from w2s_ray.report.collapsed import is_collapsed
from w2s_ray.report.row_scores import RowScores
from w2s_ray.report.settings import LOSS, Row, Setting, Unit, UnitKind, factors, shares_seeds, units
from w2s_ray.statistics.comparisons import Comparison, Discordant, compare, mcnemar
from w2s_ray.statistics.decomposition import Array, Components, Decomposition, Estimate, decompose
from w2s_ray.statistics.proportions import Interval, proportion_interval
from w2s_ray.statistics.recovered_gap import Recovered, recovered_gap
from w2s_ray.statistics.summaries import Robust, robust

ROLES = ("weak_key", "key", "ceiling_key")
ACCURACIES = ("weak_accuracy", "student_accuracy", "ceiling_accuracy")
BASELINES = ("forward_kl", "forward_ce")
"""Losses that others are compared with unless a reader names one: the field's defaults."""
TREATMENTS: tuple[Mapping[str, Any], ...] = (
    {"label_filter": "none", "label_keep": 1.0},
    {"relabel": "none"},
    {"example_weight": "none"},
    {"confidence_weight": 0.0},
    {"anchor": 0.0},
    {"weight_decay": 0.0},
)
"""Axes that do something to labels or training, at the values where they do nothing."""
FAMILY = ("data", "weak", "strong", "chain", "combine", "trainable")
"""Axes of one family of comparisons, within which Holm's method holds the error."""


class Score(NamedTuple):
    """An accuracy with its 95 % interval."""

    estimate: Estimate
    interval: Interval


@dataclass(frozen=True)
class Answer:
    """What is known of one setting.

    Attributes:
        setting: its cells.
        unit: what varies: seeds, or weak models' seeds with the students of each.
        seeds: names of the units with a finished student.
        missing: cells that are not done.
        rows: number of test rows.
        weak, student, ceiling: accuracies, each over the finished cells that have such a model;
            None without any.
        recovered: the performance gap recovered, over the cells that have all three.
        incomplete: finished cells that lack a weak model's or a ceiling's scores.
        by_seed: the student's accuracy in each unit.
        summary: of these, not moved by one collapsed seed.
        collapsed: rows of ``results`` whose student is below chance.
        one_weak_model: several units share one weak model, so nothing here holds for another.
        shares_seeds: students of several weak models have one seed, so intervals hold for it alone.
    """

    setting: Setting
    unit: UnitKind
    seeds: tuple[Any, ...]
    missing: int
    rows: int = 0
    weak: Score | None = None
    student: Score | None = None
    ceiling: Score | None = None
    recovered: Recovered | None = None
    by_seed: tuple[float, ...] = ()
    summary: Robust | None = None
    incomplete: int = 0
    collapsed: tuple[Row, ...] = ()
    one_weak_model: bool = False
    shares_seeds: bool = False


def answer(setting: Setting, scores: RowScores) -> Answer:
    """The answer of one setting.

    Raises:
        InputError: its models were scored on different rows, or their predictions are not those
            that the accuracies in ``results`` were computed from.
    """
    finished = [row for row in setting.done if scores.has(row["key"])]
    unit, of_units = units(finished)
    missing = len(setting.rows) - len(finished)
    if not finished:
        return Answer(setting, unit, (), missing)
    data = setting.axes["data"]
    own = [[row for row in finished if scores.has(row[role])] for role in ROLES]
    for role, accuracy, rows in zip(ROLES, ACCURACIES, own, strict=True):
        for row in rows:
            scores.check(row[role], data, row[accuracy])
    complete = [row for row in finished if all(scores.has(row[role]) for role in ROLES)]
    of = _decomposed(complete, ROLES, scores, data) if complete else None
    weak, student, ceiling = (
        _score(of, weights) if len(rows) == len(complete) else _alone(role, rows, scores, data)
        for role, rows, weights in zip(ROLES, own, np.eye(len(ROLES)), strict=True)
    )
    by_seed = tuple(
        float(np.mean([scores.right(row["key"], data).mean() for row in unit.rows]))
        for unit in of_units
    )
    return Answer(
        setting,
        unit,
        tuple(unit.name for unit in of_units),
        missing,
        rows=len(scores.rows(data).labels),
        weak=weak,
        student=student,
        ceiling=ceiling,
        recovered=None if of is None else recovered_gap(of),
        by_seed=by_seed,
        summary=robust(by_seed),
        incomplete=len(finished) - len(complete),
        collapsed=tuple(row for row in finished if is_collapsed(row)),
        one_weak_model=len(of_units) > 1 and len({row["weak_key"] for row in finished}) == 1,
        shares_seeds=unit == "weak seed" and shares_seeds(of_units),
    )


def _decomposed(
    rows: Sequence[Row], roles: Sequence[str], scores: RowScores, data: str
) -> Decomposition:
    """The decomposition of the scores of the models in these roles."""
    by_factor = (
        np.stack([_of_units(of, role, scores, data) for role in roles])
        for of in factors(*units(rows))
    )
    return decompose(*by_factor, groups=scores.rows(data).groups)


def _score(of: Decomposition | None, weights: Array) -> Score | None:
    if of is None:
        return None
    estimate = of.estimate(weights)
    return Score(estimate, proportion_interval(estimate))


def _alone(role: str, rows: Sequence[Row], scores: RowScores, data: str) -> Score | None:
    """The score in one role, where not every cell has models in all of them."""
    return _score(_decomposed(rows, [role], scores, data), np.ones(1)) if rows else None


def _of_units(of_units: Sequence[Unit], role: str, scores: RowScores, data: str) -> Array:
    """(S, n) scores of the models in a role, averaged within units."""
    return np.stack(
        [np.mean([scores.right(row[role], data) for row in unit.rows], axis=0) for unit in of_units]
    )


@dataclass(frozen=True)
class Difference:
    """A setting against the baseline's setting, at equal other axes, on the same rows and seeds.

    Attributes:
        setting, baseline: what is compared.
        unit: what varies, as in ``Answer``.
        seeds: the units that both have.
        shares_seeds: as in ``Answer``.
        dropped: cells that only one of them has.
        rows: number of test rows.
        groups: number of independent ones: of prompts.
        confidence: mean of ``learned_label_confidence`` of the baseline's students.
        comparison: estimate, tests and verdict.
        components: variances of the difference, for power.
        discordant: McNemar's test, where there is one seed.
    """

    setting: Setting
    baseline: Setting
    unit: UnitKind
    seeds: tuple[Any, ...]
    shares_seeds: bool
    dropped: int
    rows: int
    groups: int
    confidence: float | None
    comparison: Comparison
    components: Components
    discordant: Discordant | None


def baseline_of(settings: Sequence[Setting]) -> str | None:
    """The loss to compare with: the field's default if it is there, else the first one."""
    losses = [of.axes["loss"] for of in settings if not of.axes["control"]]
    return next((name for name in BASELINES if name in losses), losses[0] if losses else None)


def differences(
    settings: Sequence[Setting], scores: RowScores, baseline: str, margin: float
) -> list[Difference]:
    """Every loss against the baseline, at equal other axes; families are those of ``FAMILY``.

    Of a baseline with several parameters the first in the order of ``results`` is taken.

    Args:
        margin: difference in accuracy below which two losses are the same in practice.
    """
    students = [of for of in settings if not of.axes["control"]]
    bases: dict[tuple[Any, ...], Setting] = {}
    for of in students:
        if of.axes["loss"] == baseline:
            bases.setdefault(of.without(*LOSS), of)
    pairs = [(of, bases.get(of.without(*LOSS))) for of in students]
    return _differences(pairs, scores, margin, FAMILY)


def treatment_differences(
    settings: Sequence[Setting], scores: RowScores, margin: float
) -> list[Difference]:
    """Each treatment of ``TREATMENTS`` against the plain way, at equal other axes.

    A setting with two treatments is compared with those that lack one of them. One family for each
    of ``FAMILY``.
    """
    students = [of for of in settings if not of.axes["control"]]
    pairs: list[tuple[Setting, Setting | None]] = []
    for plain in TREATMENTS:
        bases = {of.without(*plain): of for of in students if has(of, plain)}
        pairs += [(of, bases.get(of.without(*plain))) for of in students if not has(of, plain)]
    return _differences(pairs, scores, margin, FAMILY)


def has(setting: Setting, values: Mapping[str, Any]) -> bool:
    """Whether its axes have these values."""
    return all(setting.axes[name] == value for name, value in values.items())


def _differences(
    pairs: Sequence[tuple[Setting, Setting | None]],
    scores: RowScores,
    margin: float,
    family: Sequence[str],
) -> list[Difference]:
    """Those of the pairs that have a baseline other than themselves, and units in common."""
    families: dict[tuple[Any, ...], list[_Raw]] = defaultdict(list)
    for of, base in pairs:
        raw = None if base is None or base is of else _raw(of, base, scores)
        if raw is not None:
            families[tuple(of.axes[name] for name in family)].append(raw)
    return [
        Difference(**raw.facts, comparison=comparison)
        for raws in families.values()
        for raw, comparison in zip(raws, _compared(raws, margin), strict=True)
    ]


class _Raw(NamedTuple):
    """A difference before the tests of its family."""

    estimate: Estimate
    facts: Mapping[str, Any]


def _compared(raws: Sequence[_Raw], margin: float) -> list[Comparison]:
    """With one seed by McNemar's exact test, since a t test of few discordant rows is too bold.

    Rows of one prompt are not independent, which that test needs: then it is the t test of prompts.
    """
    exact = [of.facts["discordant"] for of in raws]
    p_values = [None if of is None else of.p_value for of in exact]
    return compare([raw.estimate for raw in raws], margin, exact=p_values)


def _drawn(row: Row) -> tuple[Any, Any]:
    """The seeds of weak model and student: two settings are paired where both are the same."""
    return row["weak_seed"], row["seed"]


def _raw(of: Setting, base: Setting, scores: RowScores) -> _Raw | None:
    data = of.axes["data"]
    ours, theirs = (
        {_drawn(row): row for row in side.done if scores.has(row["key"])} for side in (of, base)
    )
    both = [drawn for drawn in ours if drawn in theirs]
    if not both:
        return None
    unit, of_units = units([ours[drawn] for drawn in both])
    gains = {
        drawn: scores.right(ours[drawn]["key"], data) - scores.right(theirs[drawn]["key"], data)
        for drawn in both
    }
    groups = scores.rows(data).groups
    decomposed = decompose(
        *(
            np.stack([np.mean([gains[_drawn(row)] for row in unit.rows], axis=0) for unit in of])
            for of in factors(unit, of_units)
        ),
        groups=groups,
    )
    discordant = None
    if len(both) == 1 and groups is None:  # McNemar's rows are independent
        alone = ours[both[0]], theirs[both[0]]
        discordant = mcnemar(*(scores.right(row["key"], data) for row in alone))
    learned = [
        row["learned_label_confidence"]
        for row in (theirs[drawn] for drawn in both)
        if row["learned_label_confidence"] is not None
    ]
    facts = {
        "setting": of,
        "baseline": base,
        "unit": unit,
        "seeds": tuple(of.name for of in of_units),
        "shares_seeds": unit == "weak seed" and shares_seeds(of_units),
        "dropped": len({*ours, *theirs}) - len(both),
        "rows": len(gains[both[0]]),
        "groups": decomposed.rows,
        "confidence": float(np.mean(learned)) if learned else None,
        "components": decomposed.components(np.ones(1)),
        "discordant": discordant,
    }
    return _Raw(decomposed.estimate(np.ones(1)), facts)
