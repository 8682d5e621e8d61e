"""What a step costs is known by its key, and a plan costs the sum of its steps."""

import pytest

from w2s_ray.plan.build import build
from w2s_ray.plan.cost import estimate, flops
from w2s_ray.spec.loading import load


def test_costs_of_steps_sum_to_that_of_the_plan(write_spec):
    spec = load(write_spec(grid__trainable=["full", "last_layer"]))
    plan = build(spec)
    each = flops(plan)
    assert each.keys() == plan.steps.keys()
    cost = estimate(plan)
    assert cost.flops == pytest.approx(sum(each.values())) and cost.unknown_steps == 0
    for step in plan:
        runs_nothing = step.kind.name in ("prepare", "evaluate") or "features" in step.inputs
        assert (each[step.key] == 0) == runs_nothing
