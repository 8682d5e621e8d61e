"""How long steps take on GPUs of a type: an estimate from operations and bytes.

Operations at the share of the GPU's peak that ``gpus.json`` assumes, but no faster than weights can
be read from memory; then what ZeRO sends between GPUs, and the bytes that an update moves through
memory. Nothing is taken to overlap. Left out are start-up of processes, loading of weights, and
what Python costs small models. Good for an order of magnitude and for comparing ways.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from w2s_ray.plan.architecture import Shape, shape
from w2s_ray.plan.cost import rows, tokens_a_row
from w2s_ray.plan.gpus import Gpu, gpu_type
from w2s_ray.plan.graph import TRAINED_ON, Plan, Step
from w2s_ray.plan.memory import WIDTH

if TYPE_CHECKING:
    from w2s_ray.spec.schema import Spec

HOST_LINK = 20e9  # bytes a second between a GPU and its host's memory (PCIe 4, 16 lanes, in use)
HOST_MEMORY = 50e9  # bytes a second that an update in host memory moves, a process


@dataclass(frozen=True, slots=True)
class Time:
    """Of one plan step; GPU seconds are summed over its processes."""

    seconds_an_update: float  # wall clock of one optimizer step; 0 where nothing is trained
    gpu_seconds: float


def flops_a_token(
    model: Shape, row_tokens: float, *, trainable: str = "full", recomputed: bool = False
) -> float:
    """Operations of forward and backward for one token: 6 N and attention's share.

    N without embeddings, which are looked up. Weights that are not trained need no gradients of
    their own (4 N); recomputed blocks cost a second forward (2 N more).
    """
    matrices = model.parameters - model.embeddings
    attention = 2 * model.layers * model.heads * model.head_width * row_tokens  # causal: half
    forward = 2.0 * matrices + attention
    passes = 3.0 if trainable == "full" else 2.0
    return forward * (passes + recomputed)


def seconds_an_update(
    model: Shape,
    gpu: Gpu,
    *,
    precision: str,
    tokens: float,
    row_tokens: float,
    world: int = 1,
    stage: int = 0,
    pass_tokens: int = 16_384,
    trainable: str = "full",
    offload: str = "none",
    recomputed: bool = False,
) -> float:
    """Wall clock of one optimizer step over ``tokens`` in all, ``pass_tokens`` a GPU at a time."""
    width, own = WIDTH[precision], tokens / world
    passes = max(1, math.ceil(own / pass_tokens))
    each = flops_a_token(model, row_tokens, trainable=trainable, recomputed=recomputed)
    read = passes * (3 + recomputed) * width * (model.parameters - model.embeddings)
    compute = max(each * own / (gpu.flops[precision] * gpu.utilization), read / gpu.bandwidth)
    sent = 0.0
    if world > 1:
        part = (world - 1) / world * model.parameters
        gradients = 4 * part if trainable == "full" else 0.0
        if stage == 3:  # weights gathered forward and backward, gradients scattered, in each pass
            sent = passes * (2 * width * part + gradients)
        else:  # all-reduced: of stage 2 in each pass; updated weights gathered
            sent = (passes if stage == 2 else 1) * 2 * gradients + (
                width * part if gradients else 0
            )
    compute += sent / (gpu.link if world <= gpu.a_machine else gpu.network)
    if trainable != "full":  # adapters are too few to count
        return compute
    share = model.parameters / world
    if offload == "none":  # masters and moments read and written, gradients read, weights written
        return compute + 30 * share / gpu.bandwidth
    return compute + 6 * share / HOST_LINK + 30 * share / HOST_MEMORY


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
    forward = flops_a_token(model, row_tokens) / 3
    precision = spec.training.precision
    rate = gpu.flops[precision] * gpu.utilization
    if step.kind == "features":
        return Time(0.0, forward * sum(counts.values()) * row_tokens / rate)
    if step.kind == "label":
        return Time(0.0, forward * counts["weak"] * row_tokens / rate)
    training, execution = step.config["training"], step.execution
    world, batch = int(execution["workers"]), int(training["batch_size"])
    trained = counts[TRAINED_ON[step.kind]]
    update = seconds_an_update(
        model,
        gpu,
        precision=precision,
        tokens=min(batch, trained) * row_tokens,
        row_tokens=row_tokens,
        world=world,
        stage=int(execution["zero_stage"]),
        pass_tokens=int(execution["micro_batch_tokens"] or 16_384),
        trainable=training["trainable"],
        offload=execution["offload"],
        recomputed=execution["activation_checkpointing"],
    )
    updates = int(training["epochs"]) * trained / min(batch, trained)
    scoring = forward * counts["test"] * row_tokens / rate
    return Time(update, world * update * updates + scoring)
