"""How the steps of a plan are run, a line for each kind of step of each model: for people."""

from collections.abc import Container
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from w2s_ray.plan.graph import Plan, Step
from w2s_ray.plan.times import times

if TYPE_CHECKING:
    from w2s_ray.spec.schema import Spec


@dataclass(frozen=True, slots=True)
class PlacedSteps:
    """Steps of one kind and model that are run in one way.

    Attributes:
        kind, model, trainable: of the steps; ``trainable`` is None where nothing is trained.
        steps, todo: how many there are, and are to be done.
        zero_stage: None for a process alone, without DeepSpeed.
        micro_batch_tokens: of one pass; None: what suits the device.
        predicted_memory_bytes: of each GPU at its peak; None where it is not known.
        seconds_an_update: of one optimizer step; None where nothing is trained or known.
        gpu_hours: of the steps to do; None where it is not known.
        why: this way and none milder.
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


def placements(spec: "Spec", plan: Plan, todo: Container[str]) -> list[PlacedSteps]:
    """Of all steps that run a backbone, in the order of the plan; [] without a ``gpu_type``."""
    if spec.execution.gpu_type is None:
        return []
    known = times(spec, plan, plan)
    groups: dict[tuple[Any, ...], list[Step]] = {}
    for step in plan:
        if step.key in known:
            groups.setdefault((step.kind, id(step.execution), known[step.key]), []).append(step)
    names = {str(model.model_dump(mode="json")): name for name, model in spec.models.items()}
    found = []
    for (kind, _, time), steps in groups.items():
        execution = steps[0].execution
        trains = kind not in ("features", "label")
        left = sum(step.key in todo for step in steps)
        alone = execution["workers"] == 1 and execution["offload"] == "none"
        found.append(
            PlacedSteps(
                kind=kind,
                model=names[str(execution["model"])],
                trainable=steps[0].config["training"]["trainable"] if trains else None,
                steps=len(steps),
                todo=left,
                workers=execution["workers"],
                zero_stage=execution["zero_stage"] if trains and not alone else None,
                offload=execution["offload"] if trains else "none",
                activation_checkpointing=trains and execution["activation_checkpointing"],
                micro_batch_tokens=execution["micro_batch_tokens"] if trains else None,
                predicted_memory_bytes=execution["predicted_memory_bytes"],
                seconds_an_update=time.seconds_per_update if time and trains else None,
                gpu_hours=None if time is None else left * time.gpu_seconds / 3600,
                why=execution["placement"],
            )
        )
    return found
