"""Who labels a student's rows: a weak model, an ensemble of several, or the student before it.

An ensemble stands for a weak model: other steps read its predictions and its labels as they read
those of one. In a chain each student labels for the next, and so keeps its weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from w2s_ray.errors import InputError
from w2s_ray.plan.configs import EnsembleConfig, TrainConfig, Training
from w2s_ray.plan.kinds import KINDS
from w2s_ray.plan.step import Kind, Step
from w2s_ray.plan.step_builder import StepBuilder
from w2s_ray.plan.trainings import Trainings
from w2s_ray.spec.expansion import CellPoint
from w2s_ray.spec.schema import Spec


class Builder(StepBuilder, Protocol):
    """What is needed here of ``build.Builder``."""

    spec: Spec
    steps: dict[str, Step]
    trainings: Trainings

    def trained_on_truth(
        self, kind: Kind, data: str, model: str, training: Training, seed: int
    ) -> Step: ...
    def reward(self, data: str, model: str, training: Training, seed: int) -> Step: ...
    def label(self, data: str, model: str, weak: Step) -> Step: ...
    def student(self, point: CellPoint, training: Training, label: Step) -> Step: ...


@dataclass(frozen=True, slots=True)
class Teacher:
    """What a student learns from.

    Attributes:
        weak: the step whose test predictions are those of the cell's weak model.
        label: the step with the soft labels.
        upstream: keys of further steps that the labels depend on, by role.
    """

    weak: Step
    label: Step
    upstream: Mapping[str, str]


def weak_models(builder: Builder, point: CellPoint) -> list[Step]:
    """The weak models of a cell: one, or the members of its ensemble."""
    training = builder.trainings.weak(point)
    by_reward = builder.spec.training.weak.objective == "implicit_reward"
    train = builder.reward if by_reward else partial(builder.trained_on_truth, KINDS["weak"])
    return [train(point.data, name, training, point.weak_seed) for name in point.members]


def weak_side(builder: Builder, point: CellPoint, weak: Sequence[Step]) -> Teacher:
    """The weak models of a cell, and their labels; several are combined.

    Args:
        weak: in the order of ``point.members``.

    Raises:
        InputError: two members of an ensemble are the same model.
    """
    labels = [
        builder.label(point.data, name, model)
        for name, model in zip(point.members, weak, strict=True)
    ]
    if len(weak) == 1:
        return Teacher(weak[0], labels[0], {})
    by_key = {model.key: label for model, label in zip(weak, labels, strict=True)}
    if len(by_key) < len(weak):
        raise InputError(
            f"grid.pair: given the ensemble {point.weak}, expected each model once: two of its "
            "names stand for one model",
            ("grid", "pair"),
        )
    upstream: dict[str, str] = {}
    for number, (model, label) in enumerate(zip(weak, labels, strict=True), start=1):
        role = f"member_{number}"
        upstream |= {role: model.key, f"{role}_label": label.key}
        upstream |= features_key(f"{role}_features", model)
    seed = weak[0].config_as(TrainConfig).seed
    ensemble = _ensemble(builder, point, by_key, seed)
    return Teacher(ensemble, ensemble, upstream)


def next_link(
    builder: Builder, teacher: Teacher, link: CellPoint, training: Training, number: int
) -> Teacher:
    """A student of a chain as the teacher of the one after it.

    Args:
        link: the student's own point, as of ``effects.link_points``.
        number: of the link, from 1.
    """
    student = builder.student(link, training, teacher.label)
    _keep_weights(builder, student)
    role = f"link_{number}"
    upstream = {
        **teacher.upstream,
        f"{role}_label": teacher.label.key,
        role: student.key,
        **features_key(f"{role}_features", student),
    }
    return Teacher(teacher.weak, builder.label(link.data, link.strong, student), upstream)


def features_key(role: str, step: Step) -> dict[str, str]:
    """The key of the features that a step or its labels' judges read; {} if none are read."""
    key = step.inputs.get("features", step.inputs.get("label_features"))
    return {} if key is None else {role: key}


def _ensemble(builder: Builder, point: CellPoint, labels: Mapping[str, Step], seed: int) -> Step:
    """Several weak models as one; the order of their names changes no key.

    Args:
        labels: of each member, by the member's key.
    """
    inputs = {"prepare": builder.prepare(point.data).key}
    for number, key in enumerate(sorted(labels), start=1):
        inputs |= {f"weak_{number}": key, f"label_{number}": labels[key].key}
    slug = f"{point.data}-{point.weak}-{point.combine}-s{seed}"
    return builder.add(KINDS["ensemble"], slug, EnsembleConfig(point.combine), inputs)


def _keep_weights(builder: Builder, student: Step) -> None:
    """Has the weights of a student written, since it labels; a head always keeps its own."""
    kept, role = student.execution.keep_models, student.kind.name
    if role not in kept and student.backbone is not None:
        execution = replace(student.execution, keep_models=(*kept, role))
        builder.steps[student.key] = replace(student, execution=execution)
