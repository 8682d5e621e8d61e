"""How learning rates, steps and epochs are chosen: the sections ``validation`` and ``select``."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from w2s_ray.spec.fields import Count, Model, as_list, mistake

Rule = Literal["weak_ce", "weak_agreement", "own_loss", "ground_truth"]
Over = Literal["learning_rate", "step", "epochs"]
ValidationLabels = Literal["weak", "ground_truth"]

CELL_AXES = ("learning_rate", "epochs")
"""The axes of the grid that can be chosen over."""


class Validation(Model):
    """Rows of the split ``weak`` that no student learns from; every model is scored on them."""

    rows: Count = Field(
        description="number of rows of the split weak, at least 1, that are held out",
        examples=[500],
        json_schema_extra={"unit": "rows"},
    )
    labels: ValidationLabels = Field(
        "weak",
        description="weak, or ground_truth (which lets select use the true labels)",
        examples=["ground_truth"],
    )


def _names(value: Any) -> Any:
    """Read one or several names, each of them once."""
    listed = as_list(value)
    if not listed:
        raise mistake("at least one name")
    if len({str(name) for name in listed}) < len(listed):
        raise mistake("each name once")
    return listed


class Select(Model):
    """A rule by which one of several students is chosen, for each loss, noise and seed."""

    over: Annotated[tuple[Over, ...], BeforeValidator(_names)] = Field(
        description="one or more of learning_rate, step and epochs",
        examples=[["learning_rate", "step"]],
    )
    by: Rule = Field(
        description="weak_ce, weak_agreement, own_loss or ground_truth, on the validation rows",
        examples=["weak_ce"],
    )

    @property
    def cells(self) -> tuple[str, ...]:
        """The axes of the grid that are chosen over, in the order of the grid."""
        return tuple(name for name in CELL_AXES if name in self.over)

    @property
    def step_by(self) -> Rule | None:
        """The rule that chooses a student's step; None: the last step."""
        return self.by if "step" in self.over else None
