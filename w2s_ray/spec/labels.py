"""What a study may do to weak labels, as fields of the grid."""

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from w2s_ray.objectives.calibration import FEWEST_ROWS
from w2s_ray.objectives.noise import noisy_count
from w2s_ray.spec.fields import Mistake, Model, Number, mistake
from w2s_ray.spec.training import WeakOverrides

FilterBy = Literal["confidence", "margin_to_prior", "probe", "knn"]
Relabel = Literal["none", "probe", "knn"]
FilterOrNone = FilterBy | Literal["none"]
ExampleWeight = Literal["none", "confidence"]


class LabelFilter(Model):
    """Which of its weak labels a student learns from: the best share of them."""

    keep: Annotated[Number, Field(gt=0, le=1)] = Field(
        description="a share above 0; 1 keeps every row",
        examples=[0.5],
        json_schema_extra={"unit": "fraction of rows"},
    )
    by: FilterBy = Field(
        description="confidence or margin_to_prior (of the label itself), probe or knn (agreement "
        "with what the strong model's features say)",
        examples=["confidence"],
    )


def filter_or_none(value: Any) -> Any:
    """Read ``none`` as null: no filter."""
    if value == "none":
        return None
    if not isinstance(value, dict | LabelFilter | None):
        raise mistake("null, or {keep: a share, by: …}")
    return value


FilterValue = Annotated[LabelFilter | None, BeforeValidator(filter_or_none)]


def filters_without_rows(
    filters: tuple[LabelFilter | None, ...], weak_rows: Mapping[str, int | None]
) -> list[Mistake]:
    """A mistake for each filter that keeps no row, located within the axis.

    Args:
        weak_rows: of each data set, where the spec gives their number.
    """
    wrong: list[Mistake] = []
    for position, value in enumerate(filters):
        for name, rows in weak_rows.items():
            if value is not None and rows is not None and not noisy_count(rows, value.keep):
                expected = mistake(f"a share that keeps one of the {rows} rows of data {name!r}")
                wrong.append(((position, "keep"), value.keep, expected))
    return wrong[:1]


def rewards_without_pairs(
    weak: WeakOverrides, kinds: Mapping[str, str], trainable: Collection[str], identical: str
) -> list[Mistake]:
    """Mistakes where implicit rewards are asked for of what has none.

    Args:
        weak: how the weak model is trained.
        kinds: of each data set.
        trainable: of the weak model, the students' where it has none of its own.
        identical: what is done with pairs of identical answers.
    """
    if weak.objective != "implicit_reward":
        return []
    wrong: list[Mistake] = []
    where = ("training", "weak")
    for name in (name for name, kind in kinds.items() if kind != "preference"):
        expected = mistake(f"classifier with data {name!r}, which has no pairs")
        wrong.append(((*where, "objective"), weak.objective, expected))
    if "last_layer" in trainable:
        expected = mistake("full or lora with objective: implicit_reward, a language model's")
        wrong.append(((*where, "trainable"), weak.trainable, expected))
    if identical != "leave_out":
        expected = mistake("leave_out with training.weak.objective: implicit_reward")
        wrong.append((("training", "identical_pairs"), identical, expected))
    if weak.calibrate != "none":
        expected = mistake("none with objective: implicit_reward, which trains on all true labels")
        wrong.append(((*where, "calibrate"), weak.calibrate, expected))
    return wrong


def calibrations_without_rows(
    calibrate: str, truth_rows: Mapping[str, int | None]
) -> list[Mistake]:
    """A mistake where a tenth of the ground-truth rows is less than one.

    Args:
        truth_rows: of each data set, where the spec gives their number.
    """
    for name, rows in truth_rows.items():
        if calibrate != "none" and rows is not None and rows < FEWEST_ROWS:
            expected = mistake(
                f"none with the {rows} ground-truth rows of data {name!r} (a tenth is held out, so "
                f"at least {FEWEST_ROWS})"
            )
            return [(("training", "weak", "calibrate"), calibrate, expected)]
    return []
