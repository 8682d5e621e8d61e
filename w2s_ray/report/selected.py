"""What a table says of a choice: the rows that a rule chose, and what a reader must know of it."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from w2s_ray.store.axis_columns import AXES

Row = dict[str, Any]


def chosen_over(rows: Sequence[Row]) -> tuple[str, ...]:
    """What the rows were chosen over; () without ``select``."""
    named = next((row["selected_over"] for row in rows if row.get("selected_over")), "")
    return tuple(named.split(", ")) if named else ()


def shown(rows: Sequence[Row]) -> list[Row]:
    """The rows of a table: all, or with ``select`` one for each choice.

    Where nothing could be chosen, since no cell is finished, that is the first of the cells.
    """
    over = chosen_over(rows)
    if not over:
        return list(rows)
    choices: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        choices[tuple(row.get(axis.name) for axis in AXES if axis.name not in over)].append(row)
    return [
        next((row for row in members if row["selected"]), members[0])
        for members in choices.values()
    ]


def lines(rows: Sequence[Row]) -> Iterator[str]:
    """Lines of a caption about the chosen rows; none without ``select``.

    Args:
        rows: as ``shown`` gave them.
    """
    over = chosen_over(rows)
    chosen = [row for row in rows if row.get("selected")]
    if not over:
        return
    yield rule(rows)
    if chosen:
        yield "chosen: " + ", ".join(_range(name, chosen) for name in over)
    if at_edge := [row["selection_at_edge"] for row in chosen if row["selection_at_edge"]]:
        counts = Counter(name for edges in at_edge for name in edges.split(", "))
        each = ", ".join(f"{name.replace('_', ' ')} in {count}" for name, count in counts.items())
        yield (
            f"{len(at_edge)} of {len(chosen)} choices are at the edge of their grid ({each}): a "
            "wider grid may have a better value"
        )
    if missing := sum(bool(row["selection_missing"]) for row in rows):
        yield f"{missing} of {len(rows)} choices are among cells that failed or are not finished"


def rule(rows: Sequence[Row]) -> str:
    """What was chosen, and by which rule; "" without ``select``."""
    over = chosen_over(rows)
    if not over:
        return ""
    held_out = next((row["validation_rows"] for row in rows if row.get("validation_rows")), None)
    on = f"{held_out:,} held-out rows" if held_out is not None else "held-out rows"
    names = " and ".join(name.replace("_", " ") for name in over)
    by = next(row["selected_by"] for row in rows)
    if by == "ground_truth":
        return f"{names} chosen with the true labels of {on}: not available to a weak supervisor"
    return f"{names} chosen by {by} on {on}"


def _range(name: str, chosen: Sequence[Row]) -> str:
    column = "selected_step" if name == "step" else name
    values = sorted({row[column] for row in chosen if row[column] is not None})
    ends = values if len(values) < 2 else [values[0], values[-1]]
    return f"{name.replace('_', ' ')} {' to '.join(f'{value:g}' for value in ends)}"
