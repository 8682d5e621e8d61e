"""Columns with a strength of the preference: compared with the preference, never trained on.

The names are those of TRL (``margin``) and of the data sets of the Hub that it is used with.
"""

from collections import Counter
from collections.abc import Mapping
from math import isfinite
from typing import Any

_PAIRS = (
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen_rating", "rejected_rating"),
)
_MARGIN = "margin"

SCORES = (_MARGIN, *(name for pair in _PAIRS for name in pair))
"""The columns that are compared."""

NOT_FINITE = "a score is not a finite number; not compared"

CONTRADICTED = "the scores prefer the rejected answer; kept"
TIED = "both answers have the same score; kept"


def note_scores(row: Mapping[str, Any], notes: Counter[str]) -> None:
    """Count a row that has scores, and one whose scores do not agree with its preference."""
    present = [name for name in SCORES if name in row]
    if not present:
        return
    notes[f"columns compared with the preference, not trained on: {', '.join(present)}"] += 1
    margins = [_difference(row.get(better), row.get(worse)) for better, worse in _PAIRS]
    margins.append(_number(row.get(_MARGIN)))
    if not all(margin is None or isfinite(margin) for margin in margins):
        notes[NOT_FINITE] += 1
    if any(margin is not None and margin < 0 for margin in margins):
        notes[CONTRADICTED] += 1
    elif 0 in margins:
        notes[TIED] += 1


def _difference(better: object, worse: object) -> float | None:
    first, second = _number(better), _number(worse)
    return None if first is None or second is None else first - second


def _number(value: object) -> float | None:
    """A score as a number; None if it has none."""
    if isinstance(value, str | int | float):
        try:
            return float(value)
        except (ValueError, OverflowError):
            return None
    return None
