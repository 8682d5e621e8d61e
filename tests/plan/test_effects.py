"""Axes without effect: one computation, and as many cells as the grid has."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from w2s_ray.plan.build import build
from w2s_ray.plan.configs import StudentConfig
from w2s_ray.plan.graph import Plan
from w2s_ray.spec.loading import load

WriteSpec = Callable[..., Path]
GRID: dict[str, Any] = {"pair": [["small", "large"]], "trainable": ["last_layer"]}


def planned(write_spec: WriteSpec, grid: dict[str, Any], **changes: Any) -> Plan:
    return build(load(write_spec(grid={**GRID, **grid}, **changes)))


def students(plan: Plan) -> list[str]:
    """The student's key of each cell, in the order of the grid."""
    return [cell.keys["student"] for cell in plan.cells]


@pytest.mark.parametrize(
    ("switch", "off", "on", "axis", "values"),
    [
        ("confidence_weight", 0.0, 0.5, "confidence_warmup", [0.2, 0.1, 0.0]),
        ("confidence_weight", 0.0, 0.5, "confidence_form", ["target", "sum"]),
        ("noise_ratio", 0.0, 0.25, "noise_strength", [-1.0, 0.0, 0.5]),
    ],
)
def test_an_axis_that_is_switched_off_makes_cells_but_no_students(
    write_spec: WriteSpec, switch: str, off: float, on: float, axis: str, values: list[Any]
) -> None:
    plan = planned(write_spec, {switch: [off, on], axis: values})
    keys = students(plan)
    assert len(keys) == 2 * len(values)
    assert len(set(keys[: len(values)])) == 1, "switched off"
    assert len(set(keys[len(values) :])) == len(values), "switched on"
    assert plan.count()["student"] == 1 + len(values)
    assert plan.cells_sharing_students() == len(values) - 1
    assert [cell.values[axis] for cell in plan.cells] == 2 * values, "as written"
    # The key is that of a spec that does not name the axis, wherever the axis begins.
    (alone,) = students(planned(write_spec, {switch: [off]}))
    assert keys[0] == alone
    assert set(students(planned(write_spec, {switch: [off], axis: values[::-1]}))) == {alone}
    assert set(students(planned(write_spec, {switch: [off], axis: values[-1:]}))) == {alone}


@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
@pytest.mark.parametrize(
    ("axis", "values"),
    [("learning_rate", [1e-3, 1e-2]), ("epochs", [1, 2]), ("batch_size", [8, 16])],
)
def test_an_exact_solver_has_neither_rates_nor_batches(
    write_spec: WriteSpec, solver: str, axis: str, values: list[Any]
) -> None:
    training = {"precision": "fp32", "max_length_tokens": 128, "batch_size": 8, "solver": solver}
    plan = planned(write_spec, {axis: values}, training=training)
    without = planned(write_spec, {}, training=training)
    assert set(students(plan)) == set(students(without))
    assert plan.steps.keys() == without.steps.keys(), "one ceiling too"
    assert [cell.values[axis] for cell in plan.cells] == values
    by_batches = planned(write_spec, {axis: values}, training={**training, "solver": "sgd"})
    assert len(set(students(by_batches))) == 2


def test_what_is_shared_is_computed_without_what_has_no_effect(write_spec: WriteSpec) -> None:
    plan = planned(write_spec, {"confidence_warmup": [0.5], "noise_strength": [0.5]})
    (cell,) = plan.cells
    config = plan.steps[cell.keys["student"]].config_as(StudentConfig)
    assert (config.objective.confidence_warmup, config.noise.strength) == (0.2, -1.0)
    assert (cell.values["confidence_warmup"], cell.values["noise_strength"]) == (0.5, 0.5)
