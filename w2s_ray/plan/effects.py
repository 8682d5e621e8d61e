"""Axes without effect: cells that differ in nothing that is computed have one student.

One weak model is not combined with others, without confidence regularisation its warm-up and form
are not used, without noise its strength, and an exact solver uses no learning rate, epochs and
batches. Such axes are set to a value that no
other cell can change, so a grid that grows moves no key: the default of the axis, or the value in
``training``. These are the values that a spec has which does not name the axis.
"""

from dataclasses import replace
from typing import Any

from w2s_ray.spec.chains import Chain
from w2s_ray.spec.expansion import CellPoint
from w2s_ray.spec.schema import Grid, Training


def effective(point: CellPoint, training: Training) -> CellPoint:
    """The point with every axis that has no effect at its canonical value.

    Points whose effective points are equal have the same student, and the same ceiling.
    """
    unused: dict[str, Any] = {}
    if len(point.members) == 1:
        unused |= _defaults("combine")
    if point.confidence_weight == 0.0:
        unused |= _defaults("confidence_warmup", "confidence_form")
    if point.noise_ratio == 0.0:
        unused |= _defaults("noise_strength")
    if point.trainable == "last_layer" and training.solver != "sgd":
        unused |= {
            "learning_rate": training.learning_rate.last_layer,
            "epochs": training.epochs,
            "batch_size": training.batch_size,
        }
    return replace(point, **unused)


def link_points(point: CellPoint) -> list[CellPoint]:
    """The students of a chain as points of the grid, one learning from the other.

    Noise stands for errors of the weak model, so only the first link has it; every other setting is
    that of the chain. A pair is its own only link.
    """
    students = point.students
    points = [replace(point, strong=students[0], chain="")]
    for length in range(2, len(students) + 1):
        chain = Chain(point.weak, students[:length]).column
        off = _defaults("noise_ratio", "noise_strength")
        points.append(replace(point, strong=students[length - 1], chain=chain, **off))
    return points


def _defaults(*axes: str) -> dict[str, Any]:
    """The first default of each axis of the grid."""
    return {axis: Grid.model_fields[axis].default[0] for axis in axes}
