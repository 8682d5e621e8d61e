"""A layout that fits is chosen; a spec that cannot fit is refused with what would.

That it is the best one is the subject of ``test_choice.py``.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.testing.specs import tiny_spec
from w2s_ray.capacity.fit_gpus import choose_layout
from w2s_ray.capacity.gpu_types import Gpu, gpu_in, gpu_type, gpu_types, machines
from w2s_ray.capacity.layout import Constraints, Layout, Workload
from w2s_ray.capacity.memory import training_bytes
from w2s_ray.capacity.speed import seconds_per_update
from w2s_ray.catalog.shapes import Shape, shape_of
from w2s_ray.errors import InputError
from w2s_ray.plan.build import build
from w2s_ray.spec.schema import Spec

CONFIGS = Path(__file__).parents[1] / "catalog" / "configs"
H100 = gpu_type("H100")


def of(name: str) -> Shape:
    return shape_of(json.loads((CONFIGS / f"{name}.json").read_text()))


def workload(name: str, **changes: Any) -> Workload:
    return replace(Workload(name, of(name), "bf16", "full", 16, 1024, 102), **changes)


def chosen(model: Workload, *, gpu: Gpu = H100, **constraints: Any) -> Layout:
    return choose_layout(model, gpu, Constraints(**constraints))


def qwen(*pair: str, **execution: Any) -> Spec:
    models = {name: {"source": f"hf:Qwen/Qwen2.5-{name}"} for name in pair}
    return Spec.model_validate(
        tiny_spec(
            models=models,
            grid={
                "pair": [list(pair)],
                "loss": ["forward_kl", "reverse_kl"],
                "trainable": ["full"],
            },
            training={"precision": "bf16", "max_length_tokens": 512, "batch_size": 16},
            execution={"gpu_type": "H100", **execution},
        )
    )


def refused(spec: Spec) -> InputError:
    with pytest.raises(InputError) as error:
        build(spec)
    assert "\n" not in str(error.value)
    return error.value


def test_larger_models_need_at_least_as_many_gpus_and_larger_gpus_at_most_as_many() -> None:
    names = [f"Qwen2.5-{size}" for size in ("0.5B", "1.5B", "3B", "7B", "14B", "32B", "72B")]
    worlds = {
        gpu: [chosen(workload(name), gpu=gpu_type(gpu), offload="none").workers for name in names]
        for gpu in ("A100-80G", "H100", "H200", "B200")
    }
    for found in worlds.values():
        assert found == sorted(found)
    smaller = zip(worlds["H100"], worlds["H200"], worlds["B200"], strict=True)
    assert all(h100 >= h200 >= b200 for h100, h200, b200 in smaller)
    assert worlds["H100"][:3] == [1, 1, 1] and worlds["H100"][-1] >= 16


@pytest.mark.parametrize("gpu", sorted(gpu_types()))
def test_what_is_chosen_fits_gpu_and_host(gpu: str) -> None:
    kind = gpu_type(gpu)
    layout = chosen(workload("Qwen2.5-7B"), gpu=kind)
    assert layout.memory.total <= kind.usable(0.1)
    on_machine = min(layout.workers, kind.gpus_per_machine) * layout.memory.host
    assert on_machine < 0.9 * kind.host_memory
    assert layout.why


def test_fixed_fields_stay_as_they_are() -> None:
    layout = chosen(
        workload("Qwen2.5-7B"),
        workers=8,
        zero_stage=3,
        activation_checkpointing=True,
        micro_batch_tokens=3_000,
    )
    assert (layout.workers, layout.zero_stage, layout.micro_batch_tokens) == (8, 3, 3_000)
    assert layout.activation_checkpointing and layout.offload == "none"
    assert chosen(workload("Qwen2.5-0.5B"), offload="optimizer").offload == "optimizer"


def test_offloading_is_chosen_where_it_is_cheaper_than_more_gpus() -> None:
    """Between machines with one GPU each, a network of 25 Gbit/s is slower than host memory."""
    alone = gpu_in("A10G", "g5.16xlarge", machines()["g5.16xlarge"])
    layout = chosen(workload("Qwen2.5-7B"), gpu=alone)
    assert layout.workers == 1 and layout.offload != "none"
    assert layout.memory.host > 12 * workload("Qwen2.5-7B").shape.parameters
    assert "GPU-seconds an update; 2 GPUs with" in layout.why
    without = chosen(workload("Qwen2.5-7B"), gpu=alone, offload="none")
    assert without.gpu_seconds > 10 * layout.gpu_seconds
    # Within a machine of eight H100 the links are fast, and offloading is not worth it.
    layout = chosen(workload("Qwen2.5-7B"))
    assert layout.workers == 2 and layout.offload == "none"
    assert "1 GPU with optimizer offloaded" in layout.why


def test_a_micro_batch_holds_the_longest_row_and_no_more_than_a_batch() -> None:
    assert chosen(workload("Qwen2.5-0.5B", batch_size=2)).micro_batch_tokens == 2_048
    assert chosen(workload("Qwen2.5-0.5B")).micro_batch_tokens == 16_384
    for gpu in gpu_types().values():
        long = workload("Qwen2.5-3B", longest_row=3_000)
        assert chosen(long, gpu=gpu).micro_batch_tokens >= 3_000


def test_lora_takes_fewer_gpus_than_full_training() -> None:
    full = chosen(workload("Qwen2.5-7B"))
    lora = chosen(workload("Qwen2.5-7B", trainable="lora", adapters=20_000_000))
    assert lora.workers == 1 < full.workers


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_more_processes_need_no_more_memory_each(stage: int, precision: str) -> None:
    totals = [
        training_bytes(
            of("Qwen2.5-7B"), precision=precision, stage=stage, world=world, tokens=1024
        ).total
        for world in (2, 4, 8, 16, 64)
    ]
    assert totals == sorted(totals, reverse=True)


def test_more_gpus_are_faster_but_not_cheaper() -> None:
    model, seconds = of("Qwen2.5-14B"), {}
    for world in (4, 8):
        seconds[world] = seconds_per_update(
            model, H100, precision="bf16", tokens=65_536, row_tokens=512, world=world, stage=3
        )
    assert seconds[8] < seconds[4] < 2 * seconds[8]


def test_the_plan_has_the_layout_of_each_step() -> None:
    plan = build(qwen("0.5B", "7B"))
    by_kind = {step.kind.name: step.execution for step in plan}
    assert by_kind["weak"].workers == by_kind["label"].workers == 1
    student = by_kind["student"]
    assert student.workers == 2 and student.zero_stage in (1, 2, 3)
    assert student == by_kind["ceiling"]
    assert student.gpus_per_worker == by_kind["label"].gpus_per_worker == 1.0
    assert H100.usable(0.1) >= student.predicted_memory_bytes > 40e9
    assert {"min_workers", "checkpoint_minutes", "export_models"} <= student.as_json().keys()
    json.dumps(student.as_json())


def test_the_layout_never_changes_a_key() -> None:
    plans = [
        build(qwen("0.5B", "7B", **execution))
        for execution in ({}, {"gpu_type": "H200"}, {"workers": 8})
    ]
    plans.append(build(qwen("0.5B", "7B", gpu_type=None)))
    assert len({tuple(plan.steps) for plan in plans}) == 1


def test_without_a_gpu_type_nothing_is_chosen() -> None:
    plan = build(qwen("0.5B", "7B", gpu_type=None, workers=3))
    student = next(step.execution for step in plan if step.kind.name == "student")
    assert (student.workers, student.zero_stage, student.offload) == (3, 2, "none")
    assert student.predicted_memory_bytes is None and student.gpus_per_worker == 0.0


def test_an_unknown_gpu_type_is_refused_with_the_nearest() -> None:
    error = refused(qwen("0.5B", "7B", gpu_type="h10"))
    assert error.place == ("execution", "gpu_type")
    assert str(error).endswith("did you mean 'H100'?")


@pytest.mark.parametrize(
    ("execution", "field", "remedy"),
    [
        ({"workers": 1, "offload": "none"}, "workers", "what fits: workers: 2, zero_stage:"),
        ({"workers": 2, "zero_stage": 1, "offload": "none"}, "workers", "what fits: workers: 2"),
        ({"max_workers": 1, "offload": "none"}, "offload", "what fits: workers: 2"),
        ({"gpu_type": "L4", "workers": 1, "offload": "none"}, "workers", "what fits: workers: "),
    ],
)
def test_what_cannot_fit_is_refused_with_what_would(
    execution: dict[str, Any], field: str, remedy: str
) -> None:
    error = refused(qwen("0.5B", "7B", **execution))
    assert error.place == ("execution", field)
    assert remedy in str(error) and "GiB" in str(error) and "'7B'" in str(error)


def test_a_model_that_labels_must_fit_the_gpus_of_a_machine() -> None:
    machine = {"name": "mine", "gpus": 1, "host_memory_gib": 2000, "network_gbit_s": 100}
    error = refused(qwen("72B", "7B", machine=machine))
    assert error.place == ("execution", "gpu_type")
    assert "label" in str(error) and "B200" in str(error)


def test_a_model_of_unknown_shape_needs_workers_and_stage() -> None:
    content = tiny_spec(
        models={"a": {"source": "hf:nobody/one"}, "b": {"source": "hf:nobody/two"}},
        grid={"pair": [["a", "b"]], "loss": ["forward_kl"], "trainable": ["full"]},
        execution={"gpu_type": "H100"},
    )
    error = refused(Spec.model_validate(content))
    assert error.place == ("execution", "gpu_type") and "give workers and zero_stage" in str(error)
    content["execution"] = {"gpu_type": "H100", "workers": 4, "zero_stage": 3}
    student = next(s for s in build(Spec.model_validate(content)) if s.kind.name == "student")
    assert student.execution.workers == 4
    assert student.execution.predicted_memory_bytes is None


def test_a_fraction_of_a_gpu_does_not_go_with_a_type() -> None:
    with pytest.raises(ValueError, match="1 with a gpu_type"):
        qwen("0.5B", "7B", gpus_per_worker=0.5)


def test_offloaded_weights_need_zero_3() -> None:
    with pytest.raises(ValueError, match="3 or null with offload: parameters"):
        qwen("0.5B", "7B", offload="parameters", zero_stage=2)
    plan = build(qwen("0.5B", "7B", gpu_type=None, workers=2, offload="parameters"))
    assert next(s.execution.zero_stage for s in plan if s.kind.name == "student") == 3
    error = refused(qwen("0.5B", "14B", workers=1, zero_stage=2, gpu_type="L4"))
    assert "offload: optimizer" in str(error)


def test_a_disk_is_used_by_zero_3_alone() -> None:
    model = workload("Qwen2.5-0.5B")
    for offload in ("optimizer", "parameters"):
        layout = chosen(model, workers=2, offload=offload, on_disk=True)
        assert (layout.zero_stage, layout.offload) == (3, offload)
    assert chosen(model, workers=2, offload="optimizer", zero_stage=2).zero_stage == 2
    assert chosen(model, workers=2, zero_stage=1, offload="none", on_disk=True).zero_stage == 1
    for gpu in (None, "H100"):
        plan = build(
            qwen("0.5B", "7B", gpu_type=gpu, workers=2, offload="optimizer", offload_path="/nvme")
        )
        assert {s.execution.zero_stage for s in plan if s.kind.name == "student"} == {3}


def test_world_sizes_above_one_machine_are_whole_machines() -> None:
    free = {"offload": "none"}
    assert chosen(workload("Qwen2.5-32B"), **free).workers == 16
    four = replace(H100, gpus_per_machine=4)
    layout = chosen(workload("Qwen2.5-32B"), gpu=four, activation_checkpointing=False, **free)
    assert layout.workers == 12


def test_what_host_memory_cannot_hold_is_refused_with_what_would() -> None:
    small = gpu_in("A10G", "g5.xlarge", machines()["g5.xlarge"])
    with pytest.raises(InputError) as error:
        chosen(workload("Qwen2.5-7B"), gpu=small, workers=1, offload="optimizer")
    assert error.value.place == ("execution", "workers")
    message = str(error.value)
    assert "\n" not in message and "one g5.xlarge 10.4 GiB of memory for each worker" in message
    assert "131.7 GiB of host memory per worker" in message
    assert "what fits: workers: 12, zero_stage: 3" in message
    # What goes to a disk needs no memory.
    disk = chosen(workload("Qwen2.5-7B"), gpu=small, workers=1, offload="parameters", on_disk=True)
    assert disk.offload == "parameters"
