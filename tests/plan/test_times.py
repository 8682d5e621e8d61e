"""Predicted times of steps: two ways that must agree, and the direction of each choice."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.testing.specs import tiny_spec
from tests.testing.text_studies import text_spec
from w2s_ray.capacity.gpu_types import gpu_type
from w2s_ray.capacity.speed import Time
from w2s_ray.catalog.shapes import shape
from w2s_ray.plan.build import build
from w2s_ray.plan.cost import rows, tokens_per_row
from w2s_ray.plan.layout_table import LayoutRow, layout_table
from w2s_ray.plan.step import Step
from w2s_ray.plan.times import times
from w2s_ray.spec.loading import load
from w2s_ray.spec.schema import Spec

MODELS = {name: {"source": f"hf:Qwen/Qwen2.5-{name}"} for name in ("0.5B", "7B")}
GRID = {"pair": [["0.5B", "7B"]], "loss": ["forward_kl"], "trainable": ["full"], "seed": [0, 1]}


def study(**changes: Any) -> Spec:
    content = {"models": MODELS, "grid": GRID, "training": {}, "execution": {"gpu_type": "H100"}}
    return Spec.model_validate(tiny_spec(**(content | changes)))


def timed(spec: Spec, kind: str, **changes: Any) -> tuple[Step, Time]:
    """The first step of a kind, its execution changed, and its time."""
    step = next(step for step in build(spec) if step.kind.name == kind)
    step = replace(step, execution=replace(step.execution, **changes))
    (time,) = times([step], spec.training.precision, gpu_type("H100")).values()
    assert time is not None
    return step, time


def scoring_seconds(step: Step, *splits: str) -> float:
    """2 N operations a token at the rate that is assumed, N without embeddings."""
    assert step.data is not None and step.backbone is not None
    model, gpu = shape(step.backbone), gpu_type("H100")
    assert model is not None
    scored = sum(rows(step.data)[split] for split in splits) * tokens_per_row(step.data)
    weights = model.parameters - model.embeddings
    return 2 * weights * scored / (gpu.flops["bf16"] * gpu.utilization)


def test_labels_take_a_forward_of_the_weak_rows_and_update_nothing() -> None:
    step, time = timed(study(training={"precision": "bf16"}), "label")
    assert time.seconds_per_update == 0
    # Attention is below 1 % of it at these lengths.
    assert time.gpu_seconds == pytest.approx(scoring_seconds(step, "weak"), rel=0.01)


def test_training_takes_its_updates_on_all_workers_and_a_forward_of_the_rows() -> None:
    training = {"precision": "bf16", "batch_size": 8}
    one, time = timed(study(training=training | {"epochs": 1}), "student")
    assert one.execution.workers == 2
    scored = scoring_seconds(one, "test", "weak")  # and its training rows, once trained
    assert one.data is not None
    updates = rows(one.data)["weak"] / 8
    trained = 2 * updates * time.seconds_per_update
    assert time.gpu_seconds == pytest.approx(trained + scored, rel=1e-3)
    _, three = timed(study(training=training | {"epochs": 3}), "student")
    assert three.gpu_seconds - scored == pytest.approx(3 * trained, rel=1e-3)


def test_each_choice_of_a_layout_moves_the_time_of_an_update() -> None:
    spec = study()
    layout = {"workers": 2, "zero_stage": 3, "offload": "none", "micro_batch_tokens": 4096}

    def seconds(**changes: Any) -> float:
        changed = layout | {"activation_checkpointing": False} | changes
        return timed(spec, "student", **changed)[1].seconds_per_update

    as_it_is = seconds()
    assert seconds(activation_checkpointing=True) > as_it_is
    assert seconds(offload="optimizer") > as_it_is
    assert seconds(workers=4) > as_it_is  # of so small a batch most of the time is sending
    assert seconds(zero_stage=1, micro_batch_tokens=16) < seconds(micro_batch_tokens=16)
    assert seconds(micro_batch_tokens=16) > as_it_is
    assert seconds(micro_batch_tokens=None) == seconds(micro_batch_tokens=8192)
    lora = study(grid=GRID | {"trainable": ["lora"]})
    assert timed(lora, "student", **layout)[1].seconds_per_update < as_it_is


def test_steps_that_differ_in_a_seed_have_one_time() -> None:
    spec = study()
    plan = build(spec)
    predicted = times(plan, spec.training.precision, gpu_type("H100"))
    students = [predicted[step.key] for step in plan if step.kind.name == "student"]
    assert len(students) == 2 and students[0] is students[1]


def table(**execution: Any) -> tuple[dict[str, LayoutRow], dict[str, Step]]:
    """Rows and steps by kind."""
    spec = study(execution={"gpu_type": "H100"} | execution)
    plan = build(spec)
    predicted = times(plan, spec.training.precision, gpu_type("H100"))
    lines = layout_table(spec, plan, predicted, plan.steps)
    return {row.kind: row for row in lines}, {step.kind.name: step for step in plan}


def test_a_line_says_how_its_steps_are_run() -> None:
    lines, steps = table(
        workers=2, zero_stage=3, offload="optimizer", activation_checkpointing=True
    )
    for kind in ("weak", "ceiling", "student"):
        line, execution = lines[kind], steps[kind].execution
        assert (line.workers, line.zero_stage, line.offload) == (2, 3, "optimizer")
        assert line.activation_checkpointing and line.trainable == "full"
        assert line.micro_batch_tokens == execution.micro_batch_tokens is not None
        assert line.predicted_memory_bytes == execution.predicted_memory_bytes is not None
    # Labels are computed in one process, which needs no more than a forward.
    label = lines["label"]
    assert (label.workers, label.zero_stage, label.offload) == (1, None, "none")
    assert not label.activation_checkpointing and label.micro_batch_tokens is None
    assert label.trainable is None and label.seconds_an_update is None
    assert label.predicted_memory_bytes == steps["label"].execution.predicted_memory_bytes
    weak = lines["weak"].predicted_memory_bytes
    assert label.predicted_memory_bytes is not None and weak is not None
    assert label.predicted_memory_bytes < weak


def test_one_process_without_offload_is_plain_torch() -> None:
    lines, _ = table()
    assert lines["weak"].workers == 1 and lines["weak"].zero_stage is None
    assert lines["student"].workers == 2 and lines["student"].zero_stage is not None


def test_hours_are_the_seconds_of_what_is_to_do() -> None:
    spec = study()
    plan = build(spec)
    predicted = times(plan, spec.training.precision, gpu_type("H100"))
    todo = [key for key in plan.steps if plan.steps[key].kind.name != "weak"]
    seconds = sum(time.gpu_seconds for key in todo if (time := predicted.get(key)) is not None)
    hours = [row.gpu_hours for row in layout_table(spec, plan, predicted, todo)]
    assert sum(hour for hour in hours if hour is not None) == pytest.approx(seconds / 3600)


def test_a_student_of_fewer_rows_takes_less_time() -> None:
    all_of_them = timed(study(), "student")[1]
    fewer = timed(study(grid=GRID | {"train_rows": [10]}), "student")[1]
    assert fewer.seconds < all_of_them.seconds
    assert fewer.gpu_seconds < all_of_them.gpu_seconds


def test_a_step_on_two_gpus_takes_less_wall_clock_than_gpu_time() -> None:
    step, time = timed(study(), "student")
    assert step.execution.workers == 2
    assert time.seconds < time.gpu_seconds < 2 * time.seconds


def test_each_step_of_text_has_a_time_of_its_own(tmp_path: Path) -> None:
    """Two that generate by one model differ in what they answer, and how often."""
    plan = build(load(text_spec(tmp_path)))
    together = times(plan, "fp32", gpu_type("H100"))
    for step in plan:
        if step.prompts is not None and step.backbone is not None:
            alone = times([step], "fp32", gpu_type("H100"))
            assert together[step.key] == alone[step.key], step.slug
    generating = {together[step.key] for step in plan if step.kind.name == "generate"}
    assert len(generating) > 2
