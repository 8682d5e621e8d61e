"""Steps for tests of what moves steps about, and does not look into them."""

from collections.abc import Mapping
from typing import Any

from w2s_ray.capacity.execution import Execution
from w2s_ray.plan.configs import (
    Config,
    EnsembleConfig,
    EvaluateConfig,
    FeaturesConfig,
    LabelConfig,
    Noise,
    PrepareConfig,
    StudentConfig,
    StudentObjective,
    TrainConfig,
    Training,
)
from w2s_ray.plan.kinds import KINDS
from w2s_ray.plan.step import Step
from w2s_ray.spec.inputs import ModelSpec


def training(trainable: Any = "full", **changes: Any) -> Training:
    values: dict[str, Any] = {
        "learning_rate": 1e-3,
        "epochs": 1,
        "batch_size": 8,
        "max_length_tokens": 64,
        "precision": "fp32",
        "schedule": "constant",
        "clip_norm": None,
        "adam_betas": (0.9, 0.999),
        "adam_epsilon": 1e-8,
    }
    return Training(trainable, **{**values, **changes})


def config_of(kind: str, trainable: Any = "full") -> Config:
    """Some configuration of the class that steps of ``kind`` have."""
    if kind == "student":
        objective = StudentObjective("forward_kl")
        return StudentConfig({}, training(trainable), 0, objective, Noise())
    if kind in ("weak", "ceiling"):
        return TrainConfig({}, training(trainable), 0)
    if kind == "evaluate":
        return EvaluateConfig(1e-3)
    if kind == "prepare":
        return PrepareConfig({})
    if kind == "features":
        return FeaturesConfig({}, "fp32", 64)
    if kind == "label":
        return LabelConfig()
    if kind == "ensemble":
        return EnsembleConfig("mean")
    raise KeyError(f"no configuration for tests of the kind {kind!r}")


def a_step(
    kind: str,
    key: str,
    slug: str = "",
    *,
    inputs: Mapping[str, str] | None = None,
    trainable: Any = "full",
    model: str | None = None,
    **execution: Any,
) -> Step:
    """A step of a kind; ``model`` is a Hub name, ``execution`` fields of ``Execution``."""
    return Step(
        KINDS[kind],
        key,
        slug or key,
        config_of(kind, trainable),
        {} if inputs is None else inputs,
        Execution(**execution),
        None if model is None else ModelSpec(source=f"hf:{model}"),
    )
