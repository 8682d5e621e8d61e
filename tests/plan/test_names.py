"""Steps and cells are found by the names that people read, and by nothing that is ambiguous."""

from collections.abc import Callable
from pathlib import Path

import pytest

from w2s_ray.errors import InputError
from w2s_ray.plan.build import build
from w2s_ray.plan.graph import Cell, Plan
from w2s_ray.plan.lookup import step_named, step_or_cell
from w2s_ray.plan.names import cell_name, step_names, varying
from w2s_ray.spec.loading import load


@pytest.fixture
def plan(write_spec: Callable[..., Path]) -> Plan:
    """Two losses × two noise ratios × two seeds."""
    grid = {"loss": ["forward_ce", "reverse_kl"], "noise_ratio": [0.0, 0.25], "seed": [0, 1]}
    return build(load(write_spec(**{f"grid__{axis}": values for axis, values in grid.items()})))


def test_a_name_has_every_axis_that_varies_and_no_other(plan: Plan) -> None:
    assert varying(plan.cells) == ("loss", "noise_ratio", "seed")
    names = step_names(plan)
    students = {names[cell.keys["student"]] for cell in plan.cells}
    assert students == {
        f"{loss} noise={noise} seed={seed}"
        for loss in ("forward_ce", "reverse_kl")
        for noise in ("0", "0.25")
        for seed in (0, 1)
    }
    assert {names[step.key] for step in plan if step.kind.name == "weak"} == {"seed=0", "seed=1"}


def test_no_two_steps_of_a_kind_have_one_name_and_none_has_an_empty_one(plan: Plan) -> None:
    names = step_names(plan)
    named = [(step.kind.name, names[step.key]) for step in plan]
    assert len(set(named)) == len(plan.steps) and all(name for _, name in named)


def test_every_step_is_found_by_its_key_a_beginning_its_folder_and_its_name(plan: Plan) -> None:
    names = step_names(plan)
    for step in plan:
        folder = f"{step.kind.name}/{step.slug}-{step.key}"
        for name in (step.key, step.key[:12], folder):
            assert step_or_cell("--only", name, plan) is step
        found = step_named("--only", f"{step.kind} {names[step.key]}", plan)
        assert found is step


def test_a_cell_is_found_by_as_many_values_as_it_takes_in_any_order(plan: Plan) -> None:
    for cell in plan.cells:
        words = cell_name(cell, varying(plan.cells)).split()
        for name in (" ".join(words), ",".join(reversed(words))):
            found = step_or_cell("--explain", name, plan)
            assert isinstance(found, Cell) and found.keys == cell.keys
    longer = step_or_cell("--explain", "loss=reverse_kl noise_ratio=0.25 seed=1", plan)
    for same in ("reverse_kl noise=0.25 seed=1", "noise=2.5e-1 seed=1.0 loss=reverse_kl"):
        assert longer == step_or_cell("--explain", same, plan)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("reverse_kl seed=1", "fits reverse_kl noise=0 seed=1, reverse_kl noise=0.25 seed=1"),
        ("reverse_lk noise=0 seed=1", "did you mean 'reverse_kl noise=0 seed=1'?"),
        ("", "expected a key of this study"),
        ("'", "expected a key of this study"),
    ],
)
def test_a_name_that_fits_several_or_none_is_one_line(plan: Plan, name: str, said: str) -> None:
    with pytest.raises(InputError) as refused:
        step_or_cell("--explain", name, plan)
    line = str(refused.value)
    assert line.startswith("--explain: ") and said in line and "\n" not in line
