"""Scores of cells, one after the other as they finish."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from w2s_ray.plan.graph import Cell, Plan
from w2s_ray.plan.names import cell_name, varying

_OTHERS = {"weak": "weak_evaluate", "ceiling": "ceiling_evaluate"}


class CellScores:
    """Knows which cell a score belongs to, and what it is compared with.

    Args:
        metrics: of finished steps by key: those of weak models and ceilings.
    """

    def __init__(self, plan: Plan, metrics: Mapping[str, Mapping[str, Any]]) -> None:
        self._axes = varying(plan.cells)
        self._cells: dict[str, list[Cell]] = defaultdict(list)
        for cell in plan.cells:
            self._cells[cell.keys["student_evaluate"]].append(cell)
        self._compared = self.compared(plan)
        self._scores = {key: _score(of) for key, of in metrics.items()}

    @staticmethod
    def compared(plan: Plan) -> set[str]:
        """The keys of the scores that cells are compared with."""
        return {cell.keys[role] for cell in plan.cells for role in _of(cell)}

    def note(self, key: str, metrics: Mapping[str, Any]) -> list[str]:
        """A line for each cell that is done with this step."""
        if key in self._compared:
            self._scores[key] = _score(metrics)
        return [self._line(cell, _score(metrics)) for cell in self._cells.get(key, ())]

    def _line(self, cell: Cell, score: float | None) -> str:
        name = cell_name(cell, self._axes) or "the only one"
        others = {of: self._scores.get(cell.keys.get(role, "")) for of, role in _OTHERS.items()}
        compared = [f"{of} {_percent(value)}" for of, value in others.items() if value is not None]
        return f"{name}: {_percent(score)}" + (f" ({', '.join(compared)})" if compared else "")


def _of(cell: Cell) -> list[str]:
    return [role for role in _OTHERS.values() if role in cell.keys]


def _score(metrics: Mapping[str, Any]) -> float | None:
    """Accuracy, or of generated text the rate of answers that pass their check."""
    of_test = metrics.get("splits", {}).get("test", {})
    score = metrics.get("accuracy", of_test.get("rate"))
    return score if isinstance(score, float | int) else None


def _percent(score: float | None) -> str:
    return "no score" if score is None else f"{100.0 * score:.1f} %"
