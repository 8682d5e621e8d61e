"""How long the steps of a plan take on GPUs of the type that the spec names."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from w2s_ray.capacity.gpu_types import Gpu, gpu_type
from w2s_ray.capacity.speed import Time, flops_per_token, seconds_per_update
from w2s_ray.capacity.token_budgets import MICRO_BATCH_TOKENS
from w2s_ray.catalog.architecture import Shape, shape
from w2s_ray.plan.cost import rows, tokens_a_row
from w2s_ray.plan.graph import TRAINED_ON, Plan, Step

if TYPE_CHECKING:
    from w2s_ray.spec.schema import Spec


def times(spec: "Spec", plan: Plan, steps: Iterable[Step]) -> dict[str, Time | None]:
    """By key, of the ``steps`` of ``plan`` that run a model; None where its shape is not known.

    ``execution.gpu_type`` must be given.
    """
    assert spec.execution.gpu_type is not None
    gpu = gpu_type(spec.execution.gpu_type)
    shapes = {str(m.model_dump(mode="json")): shape(m) for m in spec.models.values()}
    names = {step.key: step.execution["data"] for step in plan if step.kind == "prepare"}
    data = {str(entry.model_dump(mode="json")): entry for entry in spec.data.values()}
    found: dict[tuple[Any, ...], Time | None] = {}
    by_key: dict[str, Time | None] = {}
    known_shapes: dict[int, Shape | None] = {}
    for step in steps:
        if step.kind in ("prepare", "evaluate") or _on_features(step):
            continue
        place = id(step.execution)
        if place not in known_shapes:
            known_shapes[place] = shapes[str(step.execution["model"])]
        training = id(step.config.get("training"))
        same = (step.kind, place, training, step.inputs["prepare"])
        if same not in found:
            model = known_shapes[place]
            entry = data[str(names[step.inputs["prepare"]])]
            each = tokens_a_row(entry)
            found[same] = _time(step, model, gpu, spec, rows(entry), each) if model else None
        by_key[step.key] = found[same]
    return by_key


def _on_features(step: Step) -> bool:
    """A head, or labels by one: nothing beside what the ``features`` step costs."""
    return step.kind != "features" and "features" in step.inputs


def _time(
    step: Step, model: Shape, gpu: Gpu, spec: "Spec", counts: dict[str, int], row_tokens: int
) -> Time:
    forward = flops_per_token(model, row_tokens) / 3
    precision = spec.training.precision
    rate = gpu.flops[precision] * gpu.utilization
    if step.kind == "features":
        return Time(0.0, forward * sum(counts.values()) * row_tokens / rate)
    if step.kind == "label":
        return Time(0.0, forward * counts["weak"] * row_tokens / rate)
    training, execution = step.config["training"], step.execution
    world, batch = int(execution["workers"]), int(training["batch_size"])
    trained = counts[TRAINED_ON[step.kind]]
    update = seconds_per_update(
        model,
        gpu,
        precision=precision,
        tokens=min(batch, trained) * row_tokens,
        row_tokens=row_tokens,
        world=world,
        stage=int(execution["zero_stage"]),
        micro_batch_tokens=int(execution["micro_batch_tokens"] or MICRO_BATCH_TOKENS["gpu"]),
        trainable=training["trainable"],
        offload=execution["offload"],
        recomputed=execution["activation_checkpointing"],
    )
    updates = int(training["epochs"]) * trained / min(batch, trained)
    scoring = forward * counts["test"] * row_tokens / rate
    return Time(update, world * update * updates + scoring)
