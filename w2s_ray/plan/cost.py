"""Rough cost of steps: floating-point operations, from sizes known before anything is loaded.

2 N operations a token forward and 6 N forward and backward, N the parameters of the backbone.
The number of tokens is a guess by the kind of data, so this is an order of magnitude; what is
unknown (a model whose shape nobody knows) is left out and said.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from w2s_ray.catalog.architecture import Shape, shape
from w2s_ray.plan.graph import TRAINED_ON, Plan, Step
from w2s_ray.spec.schema import DataSpec, Spec

# Its prompt once: counted on the HH pairs (102) and the generated pairs (16).
TOKENS_A_ROW = {"preference": 102, "classification": 30, "generated": 16}
GENERATED = ("generate:agreement",)
ROWS = 4000


@dataclass(frozen=True, slots=True)
class Cost:
    """Estimate for a set of steps."""

    flops: float
    unknown_steps: int  # steps whose model's shape is not known: not counted in ``flops``


def estimate(spec: Spec, plan: Plan, steps: Iterable[Step]) -> Cost:
    """The cost of ``steps``, which belong to ``plan``."""
    each = flops(spec, plan, steps).values()
    known = [cost for cost in each if cost is not None]
    return Cost(sum(known), len(each) - len(known))


def flops(spec: Spec, plan: Plan, steps: Iterable[Step]) -> dict[str, float | None]:
    """The cost of each step by its key, 0 beside that of models; None where it is unknown."""
    shapes = {str(m.model_dump(mode="json")): shape(m) for m in spec.models.values()}
    lengths = {
        step.key: _tokens(DataSpec.model_validate(step.execution["data"]))
        for step in plan
        if step.kind == "prepare"
    }
    costs: dict[str, float | None] = {}
    for step in steps:
        costs[step.key] = 0.0
        if step.kind not in ("prepare", "evaluate"):
            known = shapes[str(step.execution["model"])]
            tokens = lengths[step.inputs["prepare"]]
            costs[step.key] = None if known is None else _flops(step, known, tokens)
    return costs


def _flops(step: Step, model: Shape, tokens: Mapping[str, float]) -> float:
    if step.kind == "features":
        return 2.0 * model.parameters * sum(tokens.values())
    if "features" in step.inputs:  # a head on stored states: nothing beside the backbone
        return 0.0
    if step.kind == "label":
        return 2.0 * model.parameters * tokens["weak"]
    trained = tokens[TRAINED_ON[step.kind]]
    epochs: int = step.config["training"]["epochs"]
    return model.parameters * (6.0 * epochs * trained + 2.0 * tokens["test"])


def tokens_a_row(data: DataSpec) -> int:
    """A guess at the mean length of a row."""
    return TOKENS_A_ROW["generated" if data.source in GENERATED else data.kind]


def rows(data: DataSpec) -> dict[str, int]:
    """Rows of each split, by the sizes that the spec gives."""
    return {split: getattr(data.sizes, split) or ROWS for split in ("ground_truth", "weak", "test")}


def _tokens(data: DataSpec) -> dict[str, float]:
    return {split: float(tokens_a_row(data) * count) for split, count in rows(data).items()}
