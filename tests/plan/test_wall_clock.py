"""Hours of a plan: no less than its longest chain, nor than its GPU time over the GPUs."""

from dataclasses import replace
from typing import Any

import pytest

from tests.testing.specs import tiny_spec
from w2s_ray.capacity.gpu_types import gpu_type
from w2s_ray.capacity.speed import Time
from w2s_ray.plan import wall_clock as module
from w2s_ray.plan.build import build
from w2s_ray.plan.graph import Plan
from w2s_ray.plan.times import times
from w2s_ray.plan.wall_clock import WallClock, wall_clock
from w2s_ray.spec.schema import Spec

H100 = gpu_type("H100")
MODELS = {name: {"source": f"hf:Qwen/Qwen2.5-{name}"} for name in ("0.5B", "7B")}


def planned(seeds: int = 2) -> Plan:
    grid = {"pair": [["0.5B", "7B"]], "trainable": ["full"], "seed": list(range(seeds))}
    content = tiny_spec(models=MODELS, grid=grid, training={}, execution={"gpu_type": "H100"})
    return build(Spec.model_validate(content))


def predicted(plan: Plan) -> dict[str, Time | None]:
    return times(plan, "bf16", H100)


def clock(plan: Plan, machines: int | None = None, **changes: Any) -> WallClock:
    return wall_clock(
        changes.get("todo", plan.steps),
        changes.get("times", predicted(plan)),
        "bf16",
        H100,
        machines,
    )


def test_steps_in_a_chain_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weak model, its labels, a student: an hour each, and nothing else takes time."""
    for name in ("PROCESS_SECONDS", "GROUP_SECONDS", "MACHINE_SECONDS"):
        monkeypatch.setattr(module, name, 0.0)
    for name in ("READING", "DOWNLOAD"):
        monkeypatch.setattr(module, name, float("inf"))
    plan = planned(seeds=1)
    hour = {key: Time(0.0, 3600.0, 3600.0) for key in predicted(plan)}
    assert clock(plan, times=hour).chain_hours == pytest.approx(3.0)
    without_weak = {key: step for key, step in plan.steps.items() if step.kind.name != "weak"}
    assert clock(plan, times=hour, todo=without_weak).chain_hours == pytest.approx(2.0)
    # Eight times as many on eight GPUs: their GPU time over the GPUs is the limit, then.
    many = planned(seeds=40)
    hour = {key: Time(0.0, 3600.0, 3600.0) for key in predicted(many)}
    assert clock(many, times=hour).hours == pytest.approx(len(hour) / 8)


def test_more_machines_never_take_longer() -> None:
    plan = planned(seeds=20)
    hours = [clock(plan, machines).hours for machines in (None, 1, 2, 8, 100)]
    assert hours == sorted(hours, reverse=True)
    assert hours[-1] == pytest.approx(clock(plan).chain_hours)
    assert clock(plan).gpus == 8 and clock(plan, 2).gpus == 16


def test_a_step_of_more_gpus_than_a_machine_has_takes_more_machines() -> None:
    plan = planned()
    wide = {
        key: replace(step, execution=replace(step.execution, workers=12))
        for key, step in plan.steps.items()
    }
    assert clock(plan, todo=wide).gpus == 16


def test_starting_and_downloading_are_paid() -> None:
    plan = planned()
    nothing = {key: Time(0.0, 0.0, 0.0) for key in predicted(plan)}
    found = clock(plan, times=nothing)
    weights = 2 * (0.49e9 + 7.07e9)
    assert found.hours * 3600 > module.MACHINE_SECONDS + weights / module.DOWNLOAD
    assert found.start_gpu_hours * 3600 > 8 * weights / module.DOWNLOAD


def test_nothing_to_do_takes_no_time() -> None:
    assert clock(planned(), todo={}) == WallClock(0, 0.0, 0.0, 0.0)
