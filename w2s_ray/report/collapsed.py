"""Students that are worse than chance: a mean over seeds would hide them."""

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

Z = 1.959964  # of a two-sided interval of 95 %
NAMED = 6  # students that a caption names


def upper_limit(accuracy: float, rows: int) -> float:
    """The upper end of Wilson's 95 % interval of an accuracy on ``rows`` rows."""
    square = Z * Z / rows
    spread = Z * math.sqrt(accuracy * (1.0 - accuracy) / rows + square / (4.0 * rows))
    return (accuracy + square / 2.0 + spread) / (1.0 + square)


def is_collapsed(row: dict[str, Any]) -> bool:
    """Whether a row's student is significantly below chance, 1/K."""
    accuracy, rows = row["student_accuracy"], row["test_rows"]
    if accuracy is None or not rows:
        return False
    classes = len(json.loads(row.get("classes") or "[]")) or 2
    return upper_limit(accuracy, rows) < 1.0 / classes


def lines(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A line of a caption that counts and names the collapsed students, if there are any."""
    collapsed = [row for row in rows if is_collapsed(row)]
    if collapsed:
        yield (
            f"{len(collapsed)} of {len(rows)} students collapsed, significantly below chance: "
            f"{named(collapsed)}"
        )


def named(collapsed: Sequence[dict[str, Any]]) -> str:
    """The first of them, each with its loss, noise, seed and accuracy in percent."""
    names = [
        f"{row['loss']}, noise {row['noise_ratio']:g}, seed {row['seed']} "
        f"({100.0 * row['student_accuracy']:.1f})"
        for row in collapsed[:NAMED]
    ]
    more = f" and {len(collapsed) - NAMED} more" if len(collapsed) > NAMED else ""
    return "; ".join(names) + more
