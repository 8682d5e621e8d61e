"""The speed of this machine: what finished steps did, or what products of matrices say."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.testing.text_studies import text_spec
from w2s_ray.plan.build import build
from w2s_ray.plan.cost import flops
from w2s_ray.plan.measured_speed import SIZE, measured_speed, product_flops
from w2s_ray.spec.execution import Execution
from w2s_ray.spec.loading import load
from w2s_ray.store.artifacts import Store
from w2s_ray.study import main

ON_GPUS = Execution(gpus_per_worker=1.0)


def test_finished_steps_say_how_fast_they_were(tmp_path: Path, write_spec: Any) -> None:
    plan = build(load(write_spec(grid__trainable=["full"])))
    store, costs = Store.open(tmp_path / "store"), flops(plan)
    steps = [step for step in plan if costs[step.key]][:2]
    for step, seconds in zip(steps, (2.0, 6.0), strict=True):
        with store.draft(step.identity, {}) as draft:
            draft.metrics["seconds"] = seconds
    speed = measured_speed(plan, store, store.finished(), ON_GPUS)
    done = sum(costs[step.key] or 0.0 for step in steps)
    assert speed is not None and speed.steps == 2
    assert speed.flops == pytest.approx(done / 8.0)


def test_before_the_first_step_a_cpu_is_timed_and_a_gpu_is_not(
    tmp_path: Path, write_spec: Any
) -> None:
    plan, store = build(load(write_spec())), Store.open(tmp_path / "store")
    speed = measured_speed(plan, store, (), Execution())
    assert speed is not None and speed.steps == 0 and speed.flops > SIZE**2
    assert measured_speed(plan, store, (), ON_GPUS) is None
    assert measured_speed(plan, store, (), Execution(gpu_type="H100")) is None


def test_the_products_are_counted_whole() -> None:
    assert 1e7 < product_flops() < 1e14


def test_a_plan_without_a_gpu_type_says_how_long_it_takes(
    tmp_path: Path, write_spec: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(tmp_path / "store")
    for path in (write_spec(), text_spec(tmp_path)):
        assert main([str(path), "--plan", "--store", store]) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert re.search(r"FLOP, some [\d.,]+ (s|min|h) of one process \(a guess from", said)
