"""How the steps of a plan are run, a line for each kind of step of each model: for people."""

from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from w2s_ray.capacity.speed import Time
from w2s_ray.plan.configs import TrainConfig
from w2s_ray.plan.graph import Plan
from w2s_ray.plan.step import Step

if TYPE_CHECKING:
    from w2s_ray.spec.generation import GenerationSpec
    from w2s_ray.spec.schema import Spec


@dataclass(frozen=True, slots=True)
class LayoutRow:
    """Steps of one kind and model that are run in one way; the fields are those of ``--json``.

    Attributes:
        trainable: None where nothing is trained.
        workers: GPUs, or processes without any, that compute together.
        steps, todo: number of steps, and of unfinished ones.
        zero_stage: None without DeepSpeed.
        micro_batch_tokens: None: the device's default.
        predicted_memory_bytes: peak on each GPU; None where it is not predicted.
        seconds_an_update: of one optimizer step; None where nothing is trained or known.
        gpu_hours: of the unfinished steps; None where the model's shape is not known.
        why: this layout and no other.
    """

    kind: str
    model: str
    trainable: str | None
    steps: int
    todo: int
    workers: int
    zero_stage: int | None
    offload: str
    activation_checkpointing: bool
    micro_batch_tokens: int | None
    predicted_memory_bytes: int | None
    seconds_an_update: float | None
    gpu_hours: float | None
    why: str | None

    def as_json(self) -> dict[str, Any]:
        """Plain values by field."""
        return asdict(self)


def layout_table(
    spec: "Spec | GenerationSpec",
    plan: Plan,
    predicted: Mapping[str, Time | None],
    todo: Container[str],
) -> list[LayoutRow]:
    """All steps that run a backbone, in the order of the plan.

    Args:
        predicted: their times by key (``times``); of no others.
        todo: keys of the unfinished steps.
    """
    groups: dict[tuple[Any, ...], list[Step]] = {}
    for step in plan:
        if step.key in predicted:
            execution = replace(step.execution, keep_models=())  # which changes no layout
            same = (step.backbone, _trainable(step), execution, predicted[step.key])
            groups.setdefault((step.kind.name, *same), []).append(step)
    names = {model: name for name, model in spec.models.items()}
    return [
        _row(steps, names[model], time, sum(step.key in todo for step in steps))
        for (_, model, _, _, time), steps in groups.items()
    ]


def _trainable(step: Step) -> str | None:
    return step.config_as(TrainConfig).training.trainable if step.kind.trains else None


def _row(steps: list[Step], model: str, time: Time | None, todo: int) -> LayoutRow:
    """One line; of a step that trains nothing, what only training has is left out."""
    kind, execution = steps[0].kind, steps[0].execution
    hours = None if time is None else todo * time.gpu_seconds / 3600
    row = LayoutRow(
        kind=kind.name,
        model=model,
        trainable=None,
        steps=len(steps),
        todo=todo,
        workers=execution.workers * execution.inference_gpus,
        zero_stage=None,
        offload="none",
        activation_checkpointing=False,
        micro_batch_tokens=None,
        predicted_memory_bytes=execution.predicted_memory_bytes,
        seconds_an_update=None,
        gpu_hours=hours,
        why=execution.layout_reason,
    )
    if not kind.trains:
        return row
    return replace(
        row,
        trainable=_trainable(steps[0]),
        zero_stage=execution.zero_stage if execution.uses_deepspeed else None,
        offload=execution.offload,
        activation_checkpointing=execution.activation_checkpointing,
        micro_batch_tokens=execution.micro_batch_tokens,
        seconds_an_update=None if time is None else time.seconds_per_update,
    )
