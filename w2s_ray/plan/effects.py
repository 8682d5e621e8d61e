"""Axes without effect: cells that differ in nothing that is computed have one student.

Without confidence regularisation its warm-up and form are not used, without noise its strength, and
an exact solver uses no learning rate, weight decay, epochs and batches. Such axes are set to a
value that no other cell can change, so a grid that grows moves no key: the default of the axis, or
the value in ``training``. These are the values that a spec has which does not name the axis.
"""

from dataclasses import replace
from typing import Any

from w2s_ray.spec.expansion import CellPoint
from w2s_ray.spec.schema import Grid, Training


def effective(point: CellPoint, training: Training) -> CellPoint:
    """The point with every axis that has no effect at its canonical value.

    Points whose effective points are equal have the same student, and the same ceiling.
    """
    unused: dict[str, Any] = {}
    if point.confidence_weight == 0.0:
        unused |= _defaults("confidence_warmup", "confidence_form")
    if point.noise_ratio == 0.0:
        unused |= _defaults("noise_strength")
    if point.trainable == "last_layer" and training.solver != "sgd":
        unused |= {
            "learning_rate": training.learning_rate.last_layer,
            "epochs": training.epochs,
            "batch_size": training.batch_size,
            "weight_decay": 0.0,
        }
    return replace(point, **unused)


def _defaults(*axes: str) -> dict[str, Any]:
    """The first default of each axis of the grid."""
    return {axis: Grid.model_fields[axis].default[0] for axis in axes}
