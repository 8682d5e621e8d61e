"""Rough cost of steps: floating-point operations, from sizes known before anything is loaded.

2 N operations a token forward and 6 N forward and backward, N the parameters of the backbone.
The number of tokens is a guess by the kind of data, so this is an order of magnitude; what is
unknown (a model whose shape nobody knows) is left out and said.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from w2s_ray.plan.architecture import Shape, shape
from w2s_ray.plan.graph import Plan, Step
from w2s_ray.spec.schema import DataSpec, Spec

TOKENS_A_ROW = {"preference": 125, "classification": 30, "generated": 26}
GENERATED = ("generate:agreement",)
ROWS = 4000


@dataclass(frozen=True, slots=True)
class Cost:
    """Estimate for a set of steps."""

    flops: float
    unknown_steps: int  # steps whose model's shape is not known: not counted in ``flops``


def estimate(spec: Spec, plan: Plan, steps: Iterable[Step]) -> Cost:
    """The cost of ``steps``, which belong to ``plan``."""
    shapes = {name: shape(model) for name, model in spec.models.items()}
    by_location = {
        str(model.model_dump(mode="json")): shapes[name] for name, model in spec.models.items()
    }
    rows = {
        step.key: _rows(DataSpec.model_validate(step.execution["data"]))
        for step in plan
        if step.kind == "prepare"
    }
    flops, unknown = 0.0, 0
    for step in steps:
        if step.kind in ("prepare", "evaluate"):
            continue
        known = by_location[str(step.execution["model"])]
        if known is None:
            unknown += 1
        else:
            flops += _flops(step, known, rows[step.inputs["prepare"]])
    return Cost(flops, unknown)


def _flops(step: Step, model: Shape, tokens: Mapping[str, float]) -> float:
    if step.kind == "features":
        return 2.0 * model.parameters * sum(tokens.values())
    if "features" in step.inputs:  # a head on stored states: nothing beside the backbone
        return 0.0
    if step.kind == "label":
        return 2.0 * model.parameters * tokens["weak"]
    trained = tokens["weak" if step.kind == "student" else "ground_truth"]
    epochs: int = step.config["training"]["epochs"]
    return model.parameters * (6.0 * epochs * trained + 2.0 * tokens["test"])


def _rows(data: DataSpec) -> dict[str, float]:
    """Tokens of each split, by the sizes that the spec gives."""
    each = TOKENS_A_ROW["generated" if data.source in GENERATED else data.kind]
    return {
        split: float(each * (getattr(data.sizes, split) or ROWS))
        for split in ("ground_truth", "weak", "test")
    }
