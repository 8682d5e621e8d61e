"""Models that generate text are trained by as many GPUs as they need, and sampled by one."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from tests.testing.specs import REPOSITORY
from w2s_ray.capacity.gpu_types import gpu_type
from w2s_ray.capacity.memory import GIB
from w2s_ray.errors import InputError
from w2s_ray.plan.build import build
from w2s_ray.plan.step import Step
from w2s_ray.plan.text_configs import TextTrainConfig
from w2s_ray.plan.times import times
from w2s_ray.spec.loading import load
from w2s_ray.spec.overrides import parsed

SPEC = REPOSITORY / "study_specs" / "cong_qwen.yaml"


def planned(*changes: str) -> list[Step]:
    """The steps of the published study, with values changed as ``--set`` does."""
    return list(build(load(SPEC, parsed(changes))))


def is_in_a_group(step: Step) -> bool:
    """Whether several processes may train its model."""
    return isinstance(step.config, TextTrainConfig)


def trained(steps: Iterable[Step], width: str) -> list[Step]:
    """The steps that train the model of this size, and may do so in a group."""
    return [
        step
        for step in steps
        if is_in_a_group(step) and width in str(step.model and step.model.source)
    ]


def test_what_one_gpu_cannot_train_is_sharded_over_several() -> None:
    steps = planned("training.trainable=full")
    usable = gpu_type("H100").usable(0.1)
    for step in trained(steps, "7B"):
        assert step.execution.workers > 1
        assert step.execution.zero_stage == 3
        assert 15 * GIB < (step.execution.predicted_memory_bytes or 0) <= usable
    assert {step.execution.workers for step in trained(steps, "3B")} == {1}
    generated = [step.execution for step in steps if step.kind.name == "generate"]
    assert {execution.workers for execution in generated} == {1}


def test_as_many_rows_generate_together_as_fit() -> None:
    most = {}
    for name in ("L40S", "H200"):
        gpu = gpu_type(name)
        steps = planned(f"execution.gpu_type={name}")
        for step in (step for step in steps if step.kind.name == "generate"):
            execution = step.execution
            assert (execution.predicted_memory_bytes or 0) <= gpu.usable(0.1)
            most[name] = execution.decoded_rows or 0
            one_by_one = replace(step, execution=replace(execution, decoded_rows=1))
            (many,), (one,) = (times([of], "bf16", gpu).values() for of in (step, one_by_one))
            assert many is not None and one is not None and 4 * many.seconds < one.seconds
    assert 8 <= most["L40S"] < most["H200"]


def test_what_is_written_is_done() -> None:
    steps = planned("execution.workers=4", "execution.zero_stage=2")
    for step in steps:
        if is_in_a_group(step):
            assert (step.execution.workers, step.execution.zero_stage) == (4, 2)
        else:
            assert step.execution.workers == 1


def test_twice_the_gpus_take_less_time_and_cost_more() -> None:
    """Weights are sent and received; adapters are too few to count."""
    gpu, changes = gpu_type("H100"), ["training.trainable=full", "execution.zero_stage=3"]
    changes += ["execution.activation_checkpointing=true", "execution.micro_batch_tokens=4096"]
    (four, eight) = (trained(planned(*changes, f"execution.workers={n}"), "7B")[0] for n in (4, 8))
    (slower,), (faster,) = (times([step], "bf16", gpu).values() for step in (four, eight))
    assert slower is not None
    assert faster is not None
    assert 0.5 * slower.seconds < faster.seconds < slower.seconds
    assert faster.gpu_seconds > slower.gpu_seconds


def test_too_few_gpus_are_refused() -> None:
    with pytest.raises(InputError, match=r"qwen2\.5-7b"):
        planned("training.trainable=full", "execution.workers=1")
