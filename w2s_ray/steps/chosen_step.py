"""Which evaluated step of a trained model is scored, by a rule on its validation rows."""

from typing import Any, NamedTuple

from w2s_ray.store.artifact import Artifact
from w2s_ray.store.names import VALIDATION
from w2s_ray.store.selection import best


class ChosenStep(NamedTuple):
    """An evaluated step.

    Attributes:
        position: among the evaluated steps, from 0.
        steps: all of them.
        scores: on the validation rows at this step.
        rows: number of validation rows.
    """

    position: int
    steps: list[int]
    scores: dict[str, float | None]
    rows: int

    @property
    def is_last(self) -> bool:
        """Whether it is the end of the training, whose predictions are ``test.parquet``."""
        return self.position == len(self.steps) - 1

    @property
    def metrics(self) -> dict[str, Any]:
        """Entries of the record of ``evaluate``."""
        return {
            "step": self.steps[self.position],
            "evaluated_steps": self.steps,
            "validation": self.scores,
            "validation_rows": self.rows,
        }


def chosen_step(artifact: Artifact, by: str | None) -> ChosenStep | None:
    """The step that the rule ``by`` chooses; the last without a rule; None: nothing was evaluated.

    Raises:
        ValueError: a rule is given and nothing was evaluated.
    """
    if not artifact.has(VALIDATION):
        if by is not None:
            raise ValueError(f"{artifact.folder} has no {VALIDATION} to choose a step by {by}")
        return None
    rows = artifact.table(VALIDATION).to_pylist()
    steps = [row.pop("step") for row in rows]
    index = len(rows) - 1 if by is None else best(rows, by)
    if index is None:
        raise ValueError(f"{artifact.folder}/{VALIDATION}: no step has a score for the rule {by}")
    return ChosenStep(index, steps, rows[index], artifact.record["config"]["validation_rows"])
