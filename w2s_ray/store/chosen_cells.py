"""The cells that a spec's ``select`` chooses, and the ceiling that each is compared with."""

from collections.abc import Mapping, Sequence
from typing import Any

from w2s_ray.store.columns import RESULTS
from w2s_ray.store.selection import RULES, best, edges, groups, rule_for

Row = dict[str, Any]

# Columns of a row that describe its ceiling; beside them it has ``ceiling_scores``.
_OF_CEILING = tuple(column.name for column in RESULTS if column.name.startswith("ceiling_"))


def scores_of(evaluated: Mapping[str, Any]) -> Row:
    """The columns of a student's validation, from the metrics of its evaluation."""
    scores = evaluated.get("validation", {})
    columns = {f"validation_{rule.column}": scores.get(rule.column) for rule in RULES.values()}
    return {
        **columns,
        "selected_step": evaluated.get("step"),
        "validation_rows": evaluated.get("validation_rows"),
    }


def choose(
    rows: Sequence[Row], cells: Sequence[Mapping[str, Any]], select: Mapping[str, Any]
) -> None:
    """Fills in the columns of selection; a group's rows take the group's best ceiling.

    Only finished cells can be chosen; how many were not is in ``selection_missing``.

    Args:
        rows: of the results, with ``evaluated_steps`` and ``ceiling_scores``.
        cells: their axes.
        select: as for ``results.save_cells``.
    """
    over = select["over"]
    for members in groups(cells, over):
        group = [rows[index] for index in members]
        by = rule_for(group[0]["control"], select["by"])
        chosen = _chosen(group, by)
        missing = sum(row["status"] != "done" or not row["ceiling_scores"] for row in group)
        _share_ceiling(group)
        for position, row in enumerate(group):
            row.update(
                selected=position == chosen,
                selected_by=by,
                selected_over=", ".join(over),
                selection_missing=missing,
            )
        if chosen is not None:
            group[chosen]["selection_at_edge"] = _at_edge(group[chosen], group, over)


def _chosen(group: Sequence[Row], by: str) -> int | None:
    """The position of the chosen row; None: none is finished.

    Rows that share one model, as baselines do, need no scores: the first is chosen.
    """
    chosen = best([_scores(row) for row in group], by)
    if chosen is None and len({row["key"] for row in group}) == 1 and group[0]["status"] == "done":
        return 0
    return chosen


def _scores(row: Row) -> Mapping[str, float | None]:
    """The validation scores of a row; none unless the cell is finished."""
    if row["status"] != "done":
        return {}
    return {rule.column: row[f"validation_{rule.column}"] for rule in RULES.values()}


def _share_ceiling(group: Sequence[Row]) -> None:
    """Gives all rows the ceiling with the best accuracy on the validation rows' true labels."""
    index = best([row["ceiling_scores"] or {} for row in group], "ground_truth")
    if index is None:
        return
    ceiling = {name: group[index].get(name) for name in _OF_CEILING}
    for row in group:
        row.update(ceiling)


def _at_edge(row: Row, group: Sequence[Row], over: Sequence[str]) -> str:
    if row["validation_rows"] is None:  # of a model that has no rate and no steps
        return ""
    has_effect = len({other["key"] for other in group}) > 1  # a rate has none on an exact solver
    values = {axis: [other[axis] for other in group] for axis in over if axis != "step"}
    values = values if has_effect else {}
    if "step" in over:
        values["step"] = row["evaluated_steps"] or []
    chosen = {**row, "step": row["selected_step"]}
    return ", ".join(axis for axis in over if edges(chosen[axis], values.get(axis, [])))
