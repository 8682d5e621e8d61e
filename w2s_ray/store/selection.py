"""Rules that choose a step or a cell by scores on validation rows; which cells they choose from.

A rule sees only what was scored on the validation rows. Of equal scores the first wins: the smaller
learning rate, then fewer epochs, then the earlier step.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from w2s_ray.store.canonical import canonical_json

Scores = Mapping[str, float | None]


class _Rule(NamedTuple):
    """The column of ``validation.parquet`` that a rule reads; ``sign`` 1: the lowest is best."""

    column: str
    sign: int


RULES: Mapping[str, _Rule] = {
    "weak_ce": _Rule("weak_ce", 1),
    "weak_agreement": _Rule("weak_agreement", -1),
    "own_loss": _Rule("own_loss", 1),
    "ground_truth": _Rule("accuracy", -1),
}


def rule_for(kind: str, by: str) -> str:
    """The rule that chooses a model where the spec's rule is ``by``.

    What learned from true labels (a ceiling, ``strong_on_weak_rows``) is chosen by them. A student
    of ``shuffled_labels`` never is: of directions that know nothing the truth would choose one that
    happens to be right.

    Args:
        kind: the kind of its step, or the control that it is.
    """
    if kind in ("ceiling", "strong_on_weak_rows"):
        return "ground_truth"
    return "weak_ce" if kind == "shuffled_labels" and by == "ground_truth" else by


def best(candidates: Sequence[Scores], by: str) -> int | None:
    """The index of the candidate that the rule ``by`` chooses; None if none has a score."""
    rule = RULES[by]
    scored = [(index, of.get(rule.column)) for index, of in enumerate(candidates)]
    signed = [(rule.sign * score, index) for index, score in scored if score is not None]
    return min(signed)[1] if signed else None


def edges(chosen: Any, values: Iterable[Any]) -> bool:
    """Whether the chosen value is the lowest or the highest of two or more."""
    distinct = set(values)
    return len(distinct) > 1 and chosen in (min(distinct), max(distinct))


def groups(cells: Iterable[Mapping[str, Any]], over: Sequence[str]) -> list[list[int]]:
    """Indices of the cells that one is chosen from: equal in every axis but those in ``over``.

    Each group is in the order in which ``best`` prefers equal scores.
    """
    axes = tuple(name for name in ("learning_rate", "epochs") if name in over)
    members: dict[str, list[int]] = defaultdict(list)
    listed = list(cells)
    for index, cell in enumerate(listed):
        rest = {name: value for name, value in cell.items() if name not in axes}
        members[canonical_json(rest)].append(index)
    return [
        sorted(group, key=lambda index: [listed[index][name] for name in axes])
        for group in members.values()
    ]
