"""Rough cost of steps: floating-point operations, from sizes known before anything is loaded.

2 N operations per token forward and 6 N forward and backward, N the parameters of the backbone.
The number of tokens is a guess from the kind of data, so this is an order of magnitude. Steps whose
model has no known shape are counted apart.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from w2s_ray.catalog.shapes import Shape, shape
from w2s_ray.data.prepare import SPLITS
from w2s_ray.plan.configs import FeaturesConfig, StudentConfig, TrainConfig
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
    tokens = {split: tokens_per_row(step.data) * n for split, n in rows(step.data).items()}
    passes = 2.0 * sum(tokens[split] for split in step.kind.scored)
    if step.scores_trained_rows:
        passes += 2.0 * tokens["weak"]
    if step.kind.trained_on is not None:
        config = step.config_as(TrainConfig)
        trained = tokens[step.kind.trained_on]
        if isinstance(config, StudentConfig) and config.train_rows is not None:
            trained = min(trained, tokens_per_row(step.data) * config.train_rows)
        passes += 6.0 * config.training.epochs * trained
        on_validation = tokens_per_row(step.data) * config.validation_rows
        evaluations = config.training.evaluations if config.validation_rows else 1
        passes += 2.0 * (evaluations - 1) * tokens["test"] + 2.0 * evaluations * on_validation
    return model.parameters * passes


def tokens_per_row(data: DataSpec) -> int:
    """A guess at the mean length of a row."""
    return TOKENS_PER_ROW["generated" if data.source in GENERATED else data.kind]


def rows(data: DataSpec) -> Mapping[str, int]:
    """Rows of each split, by the sizes that the spec gives."""
    return {split: getattr(data.sizes, split) or ROWS for split in SPLITS}
