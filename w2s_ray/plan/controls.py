"""Controls (``spec.controls``): their cells, and what stands in the place of the student.

A control is a cell beside those of the grid, with its own row in ``results``. It is made once for
each data set, pair and way of training in the grid (``KEPT``); every other axis is at its default:
forward cross-entropy on the weak labels as they are. So it has the weak model and the ceiling of
the students that it is compared with.
"""

from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from typing import Any, Protocol

from w2s_ray.data.rendering import Rendering
from w2s_ray.errors import InputError
from w2s_ray.plan.configs import BaselineConfig, FeaturesConfig, Json, Training
from w2s_ray.plan.kinds import KINDS
from w2s_ray.plan.step import Kind, Step
from w2s_ray.plan.step_builder import StepBuilder
from w2s_ray.spec.controls import BASELINES, OF_PAIRS, Control
from w2s_ray.spec.expansion import CellPoint
from w2s_ray.spec.schema import Grid
from w2s_ray.spec.schema import Training as TrainingSettings

KEPT = frozenset(
    {
        "data", "weak", "strong", "combine", "weak_seed", "trainable", "readout_block",
        "learning_rate", "weight_decay", "epochs", "batch_size", "seed",
    }
)  # fmt: skip
"""Axes on which a control has the values of the grid."""


def control_points(points: Iterable[CellPoint], controls: Iterable[Control]) -> Iterator[CellPoint]:
    """The cells of the controls, each once, in the order of the controls and of the grid."""
    axes = {field.name for field in fields(CellPoint)} & set(Grid.model_fields) - KEPT - {"chain"}
    defaults: dict[str, Any] = {axis: Grid.model_fields[axis].default[0] for axis in axes}
    loss = defaults.pop("loss")
    defaults |= {"loss": loss.name, "loss_parameters": loss.parameters}
    defaults |= {"label_filter": "none", "label_keep": 1.0}
    plain = dict.fromkeys(replace(point, **defaults) for point in points if not point.chain)
    for control in controls:
        for point in plain:
            yield replace(point, control=control)


def untrained_config(model: Json, settings: TrainingSettings) -> FeaturesConfig:
    """How a model reads texts before any training.

    Args:
        model: the identity of its weights.
    """
    rendering = Rendering(settings.render, settings.bos)
    return FeaturesConfig(model, settings.precision, settings.max_length_tokens, rendering)


class Builder(StepBuilder, Protocol):
    """What is needed here of ``build.Builder``."""

    def untrained(self, data: str, model: str) -> Step: ...
    def trained_on_truth(
        self, kind: Kind, data: str, model: str, training: Training, seed: int
    ) -> Step: ...
    def student(self, point: CellPoint, training: Training, label: Step) -> Step: ...


def controlled(builder: Builder, point: CellPoint, training: Training, label: Step) -> Step:
    """What stands in the place of the student of a control's cell.

    Args:
        point: with axes without effect at their canonical values.
        training: of the strong model.
        label: the step with the weak labels.

    Raises:
        InputError: the weak side is an ensemble, which is no student; texts have no answers.
    """
    data, control = point.data, point.control
    if control in OF_PAIRS and builder.spec.data[data].kind == "classification":
        raise InputError(
            f"controls: given {control} with data {data!r} of kind classification, expected it "
            "with preference pairs only: a text to classify has no prompt and no answers",
            ("controls",),
        )
    if control == "untrained":
        return builder.untrained(data, point.strong)
    if control in BASELINES:
        return _baseline(builder, point, label)
    if control == "strong_on_weak_rows":
        kind = KINDS["strong_on_weak_rows"]
        return builder.trained_on_truth(kind, data, point.strong, training, point.seed)
    if control == "shuffled_labels":
        return builder.student(point, training, label)
    if len(point.members) > 1:
        raise InputError(
            f"controls: given weak_student with the ensemble {point.weak}, expected pairs of single"
            " models: an ensemble is no student",
            ("controls",),
        )
    try:
        return builder.student(replace(point, strong=point.weak), training, label)
    except InputError as error:
        said = f"controls: weak_student trains {point.weak!r} as a student would be: {error}"
        raise InputError(said, ("controls",)) from error


def _baseline(builder: Builder, point: CellPoint, label: Step) -> Step:
    """A model of a few features of the texts; it depends on nothing that decides the student."""
    data, reads = point.data, point.control
    inputs = {"prepare": builder.prepare(data).key, "label": label.key}
    validation = builder.spec.validation
    config = BaselineConfig(reads, 0 if validation is None else validation.rows)
    return builder.add(KINDS["baseline"], f"{reads}-on-{label.slug}", config, inputs, data=data)
