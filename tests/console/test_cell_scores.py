"""Scores of cells as they finish, beside those that they are compared with."""

from collections.abc import Callable
from pathlib import Path

from w2s_ray.console.cell_scores import CellScores
from w2s_ray.plan.build import build
from w2s_ray.plan.graph import Plan
from w2s_ray.spec.loading import load


def plan_of(write_spec: Callable[..., Path]) -> Plan:
    return build(load(write_spec(grid__noise_ratio=[0.0])))


def test_a_cell_is_told_with_the_scores_that_are_there(write_spec: Callable[..., Path]) -> None:
    plan = plan_of(write_spec)
    keys = plan.cells[1].keys
    scores = CellScores(plan, {keys["ceiling_evaluate"]: {"accuracy": 0.875}})
    assert scores.note(keys["student"], {}) == []  # not scored yet
    done = scores.note(keys["student_evaluate"], {"accuracy": 0.5})
    assert done == ["reverse_kl: 50.0 % (ceiling 87.5 %)"]
    assert scores.note(keys["weak_evaluate"], {"accuracy": 0.4375}) == []
    done = scores.note(plan.cells[0].keys["student_evaluate"], {"accuracy": 0.5})
    assert done == ["forward_kl: 50.0 % (weak 43.8 %, ceiling 87.5 %)"]


def test_of_texts_it_is_the_rate_and_a_missing_one_is_no_zero(
    write_spec: Callable[..., Path],
) -> None:
    plan = plan_of(write_spec)
    key = plan.cells[0].keys["student_evaluate"]
    rate = {"splits": {"test": {"rate": 0.25}, "transfer": {"rate": 0.75}}}  # as judge has it
    assert CellScores(plan, {}).note(key, rate) == ["forward_kl: 25.0 %"]
    assert CellScores(plan, {}).note(key, {"accuracy": None}) == ["forward_kl: no score"]


def test_cells_that_share_a_student_are_all_told(write_spec: Callable[..., Path]) -> None:
    plan = build(load(write_spec(grid__loss=["forward_kl"], grid__noise_strength=[-1.0, 0.0])))
    of_no_noise = [cell for cell in plan.cells if cell.values["noise_ratio"] == 0.0]
    (key,) = {cell.keys["student_evaluate"] for cell in of_no_noise}
    assert len(CellScores(plan, {}).note(key, {"accuracy": 0.5})) == len(of_no_noise) == 2
