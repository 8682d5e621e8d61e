"""Rough cost of steps: floating-point operations, from sizes known before anything is loaded.

2 N operations per token forward and 6 N forward and backward, N the parameters of the backbone.
The number of tokens is a guess from the kind of data, so this is an order of magnitude. Steps whose
model has no known shape are counted apart.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from w2s_ray.catalog.shapes import Shape, shape
from w2s_ray.data.prepare import SPLITS
from w2s_ray.plan.configs import FeaturesConfig, RewardConfig, StudentConfig, TrainConfig
from w2s_ray.plan.step import Step
from w2s_ray.plan.text_cost import text_passes
from w2s_ray.spec.inputs import DataSpec, ModelSpec

# Its prompt once: counted on the HH pairs (102) and the generated pairs (16).
TOKENS_PER_ROW = {"preference": 102, "classification": 30, "generated": 16}
GENERATED = ("generate:agreement",)
ROWS = 4000  # of a split whose size the spec leaves open


class Cost(NamedTuple):
    """An estimate for a set of steps.

    Attributes:
        unknown_steps: steps whose model has no known shape; not counted in ``flops``.
    """

    flops: float
    unknown_steps: int


def estimate(steps: Iterable[Step]) -> Cost:
    """The cost of ``steps`` together."""
    each = flops(steps).values()
    known = [cost for cost in each if cost is not None]
    return Cost(sum(known), len(each) - len(known))


def flops(steps: Iterable[Step]) -> dict[str, float | None]:
    """Operations of each step by key; 0 for one that runs no backbone, None where unknown."""
    shapes: dict[ModelSpec, Shape | None] = {}
    costs: dict[str, float | None] = {}
    for step in steps:
        model = step.backbone
        if model is None:
            costs[step.key] = 0.0
            continue
        if isinstance(step.config, FeaturesConfig):
            model = model.read_after(step.config.readout_block)
        if model not in shapes:
            shapes[model] = shape(model)
        known = shapes[model]
        costs[step.key] = None if known is None else _flops(step, known)
    return costs


def _flops(step: Step, model: Shape) -> float:
    if step.prompts is not None:
        return model.parameters * text_passes(step)
    assert step.data is not None
    passes = 2.0 * scored_rows(step)
    if step.kind.trained_on is not None:
        passes += 6.0 * step.config_as(TrainConfig).training.epochs * trained_rows(step)
    return model.parameters * passes * tokens_per_row(step.data)


def trained_rows(step: Step) -> int:
    """Rows of an epoch of a step that trains."""
    assert step.data is not None and step.kind.trained_on is not None
    trained = rows(step.data)[step.kind.trained_on]
    limit = step.config.train_rows if isinstance(step.config, StudentConfig) else None
    return trained if limit is None else min(trained, limit)


def scored_rows(step: Step) -> int:
    """How often a row of a step passes a model forward, apart from its training.

    Implicit rewards take two models. Those that learn them also pass what they train on: the model
    before, which DPO refers to, and the trained one, which says how it orders the pairs.
    """
    assert step.data is not None
    counts = rows(step.data)
    scored = sum(counts[split] for split in step.kind.scored)
    if step.scores_trained_rows:
        scored += counts["weak"]
    if step.second_model is not None:
        scored *= 2
    if isinstance(step.config, RewardConfig):
        return scored + 2 * trained_rows(step)
    if isinstance(step.config, TrainConfig) and step.config.validation_rows:
        evaluations = step.config.training.evaluations
        scored += (evaluations - 1) * counts["test"] + evaluations * step.config.validation_rows
    return scored


def tokens_per_row(data: DataSpec) -> int:
    """A guess at the mean length of a row."""
    return TOKENS_PER_ROW["generated" if data.source in GENERATED else data.kind]


def rows(data: DataSpec) -> Mapping[str, int]:
    """Rows of each split, by the sizes that the spec gives."""
    return {split: getattr(data.sizes, split) or ROWS for split in SPLITS}
