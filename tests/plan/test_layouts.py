"""What the spec says of execution reaches every step, and what it leaves open is chosen once."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.testing.specs import tiny_spec
from w2s_ray.capacity.memory import GIB
from w2s_ray.catalog.shapes import shape
from w2s_ray.errors import InputError
from w2s_ray.plan.build import build
from w2s_ray.plan.graph import Plan
from w2s_ray.plan.step import Step
from w2s_ray.spec.schema import AXES, Spec

MODELS = {name: {"source": f"hf:Qwen/Qwen2.5-{name}"} for name in ("0.5B", "7B")}
WRITTEN: dict[str, Any] = {
    "workers": 3,
    "min_workers": 2,
    "zero_stage": 3,
    "offload": "parameters",
    "activation_checkpointing": True,
    "micro_batch_tokens": 1234,
    "checkpoint_steps": 17,
    "checkpoint_minutes": 4.5,
    "cpus_per_worker": 2.0,
    "gpus_per_worker": 1.0,
    "keep_models": ("weak", "student"),
    "export_models": ("student",),
    "lora_together": 3,
}


def planned(trainable: str = "full", models: Any = None, **changes: Any) -> Plan:
    pair = [["small", "large"]] if models is None else [list(models)]
    grid = {"pair": pair, "loss": ["forward_kl"], "trainable": [trainable], "seed": [0]}
    content = {"grid": grid} if models is None else {"grid": grid, "models": models}
    return build(Spec.model_validate(tiny_spec(**{**content, **changes})))


def steps(plan: Plan) -> dict[str, Step]:
    """One step of each kind."""
    return {step.kind.name: step for step in plan}


def memory(kind: str, trainable: str = "full", **changes: Any) -> int:
    changes.setdefault("execution", {"gpu_type": "H100"})
    predicted = steps(planned(trainable, MODELS, **changes))[kind].execution.predicted_memory_bytes
    assert predicted is not None
    return predicted


def test_what_the_spec_says_reaches_every_step_that_trains(tmp_path: Path) -> None:
    written = WRITTEN | {"offload_path": str(tmp_path)}
    for kind in ("weak", "ceiling", "student"):
        execution = steps(planned(execution=written))[kind].execution
        assert {field: getattr(execution, field) for field in written} == written


def test_a_spec_that_says_nothing_is_one_process_at_stage_2_without_offload() -> None:
    execution = steps(planned())["student"].execution
    assert (execution.workers, execution.zero_stage, execution.offload) == (1, 2, "none")
    assert execution.activation_checkpointing is False and execution.offload_path is None
    assert execution.micro_batch_tokens is None and execution.gpus_per_worker == 0
    offloaded = steps(planned(execution={"offload": "parameters"}))["student"].execution
    assert offloaded.zero_stage == 3  # no other stage can


def test_heads_labels_and_features_are_of_one_process() -> None:
    last = steps(planned("last_layer", execution={"workers": 2}))
    full = steps(planned("full", execution={"workers": 2}))
    alone = [last[kind] for kind in ("weak", "features", "label", "student")] + [full["label"]]
    assert {step.execution.workers for step in alone} == {1}
    assert full["student"].execution.workers == full["weak"].execution.workers == 2


def test_labels_and_features_need_the_memory_of_a_forward_of_their_model() -> None:
    assert memory("label") < memory("weak")
    # The weak model's states and the strong model's are of different models.
    both = planned("last_layer", MODELS, execution={"gpu_type": "H100"})
    features = {s.slug: s.execution for s in both if s.kind.name == "features"}
    (weak, strong) = sorted(e.predicted_memory_bytes or 0 for e in features.values())
    assert 0 < weak < strong / 5
    # A head's labels run no backbone.
    assert steps(both)["label"].execution.predicted_memory_bytes is None


def test_adapters_that_train_together_are_counted_each() -> None:
    def of(together: int, rank: int = 64) -> int:
        lora = {"rank": rank}
        fixed = {"workers": 1, "activation_checkpointing": True, "micro_batch_tokens": 4096}
        execution = {"gpu_type": "H100", "lora_together": together, **fixed}
        return memory("student", "lora", execution=execution, training={"lora": lora})

    one, two, eight = of(1), of(2), of(8)
    assert one < two < eight
    assert of(2, rank=8) < two


def test_an_anchor_keeps_a_copy_of_the_weights_and_an_untrained_model_its_head() -> None:
    fixed = {"workers": 1, "activation_checkpointing": True, "micro_batch_tokens": 2048}
    execution = {"gpu_type": "H200", **fixed}
    models = {"0.5B": MODELS["0.5B"], "1.5B": {"source": "hf:Qwen/Qwen2.5-1.5B"}}
    grid = {"pair": [["0.5B", "1.5B"]], "trainable": ["full"], "anchor": [0.0, 0.1]}
    spec = tiny_spec(models=models, execution=execution, grid=grid, controls=["untrained"])
    predicted: dict[str, list[int]] = {"student": [], "untrained": [], "ceiling": []}
    for step in build(Spec.model_validate(spec)):
        if step.kind.name in predicted:
            predicted[step.kind.name].append(step.execution.predicted_memory_bytes or 0)
    known = shape(Spec.model_validate(spec).models["1.5B"])
    assert known is not None
    free, anchored = sorted(set(predicted["student"]))
    assert anchored - free == 4 * known.parameters and {free} == {*predicted["ceiling"]}
    (untrained,) = predicted["untrained"]
    assert untrained > 2 * (known.parameters + known.embeddings)


def test_a_margin_leaves_memory_free() -> None:
    workers = [
        steps(planned("full", MODELS, execution={"gpu_type": "H100", "memory_margin": margin}))[
            "student"
        ].execution.workers
        for margin in (0.05, 0.6)
    ]
    assert workers[0] < workers[1]


def test_a_cell_names_its_steps_by_their_roles_and_its_values_by_their_axes() -> None:
    plan = planned("last_layer")
    (cell,) = plan.cells
    roles = {role: plan.steps[key].kind.name for role, key in cell.keys.items()}
    assert roles == {
        "prepare": "prepare",
        "features": "features",
        "weak_features": "features",
        "weak": "weak",
        "weak_evaluate": "evaluate",
        "label": "label",
        "ceiling": "ceiling",
        "ceiling_evaluate": "evaluate",
        "ceiling_against_weak": "evaluate",
        "student": "student",
        "student_evaluate": "evaluate",
    }
    student = plan.steps[cell.keys["student"]]
    assert student.inputs["features"] == cell.keys["features"] != cell.keys["weak_features"]
    assert set(AXES) - {"pair"} <= cell.values.keys() >= {"study", "weak", "strong"}


def test_inference_workers_run_models_forward_and_move_no_key() -> None:
    for trainable, kind in (("last_layer", "features"), ("full", "label")):
        alone, several = (
            steps(
                planned(
                    trainable,
                    controls=["untrained"],
                    execution={"workers": 2, "inference_workers": count},
                )
            )
            for count in (1, 4)
        )
        assert {step.key for step in alone.values()} == {step.key for step in several.values()}
        processes = {kind: step.execution.processes for kind, step in several.items()}
        trained = ("weak", "ceiling", "student") if trainable == "full" else ()
        expected = (
            dict.fromkeys(processes, 1) | {kind: 4, "untrained": 4} | dict.fromkeys(trained, 2)
        )
        assert processes == expected
        assert alone[kind].execution.processes == 1


def test_a_model_that_no_gpu_holds_is_split_over_the_fewest_of_a_machine_that_do() -> None:
    """7B in bf16 has 14 GB of weights: one A10G holds it, which fp32 exceeds."""
    models = {name: MODELS[name] for name in ("0.5B", "7B")}

    def largest(kind: str, precision: str, gpus: int, **execution: Any) -> Step:
        machine = {"name": "mine", "gpus": gpus, "host_memory_gib": 192, "network_gbit_s": 25}
        plan = planned(
            "last_layer",
            models,
            controls=["untrained"],
            training__precision=precision,
            execution={"gpu_type": "A10G", "machine": machine, **execution},
        )
        return max(
            (step for step in plan if step.kind.name == kind),
            key=lambda step: step.execution.predicted_memory_bytes or 0,
        )

    features = partial(largest, "features")
    alone, several = features("bf16", 4).execution, features("fp32", 4).execution
    assert (alone.inference_gpus, alone.layout_reason, alone.is_pooled) == (1, None, False)
    assert (several.inference_gpus, several.devices, several.is_pooled) == (3, 3, True)
    assert several.layout_reason == (
        "blocks over 3 GPUs of a machine: needs 34.2 GiB, one A10G has 19.2 GiB usable"
    )
    assert 34.2 / 3 * GIB < (several.predicted_memory_bytes or 0) < 19.2 * GIB
    assert features("fp32", 4, inference_workers=3).execution.devices == 9
    assert largest("untrained", "fp32", 4).execution.inference_gpus == 4  # one has the head too
    assert features("fp32", 4).key == features("fp32", 4, inference_workers=3).key
    with pytest.raises(InputError, match=r"and a machine has 1; it fits .*H100"):
        features("fp32", 1)
