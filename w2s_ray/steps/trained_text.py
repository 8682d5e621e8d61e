"""A language model with what an earlier step has trained."""

from w2s_ray.catalog.digests import WEIGHTS
from w2s_ray.models.causal import CausalModel, load_causal
from w2s_ray.plan.configs import Training
from w2s_ray.spec.inputs import ModelSpec
from w2s_ray.store.artifact import Artifact


def load_trained(model: ModelSpec, precision: str, trained: Artifact | None) -> CausalModel:
    """The model with the trained parameters of ``trained``; None: as it is.

    Raises:
        InputError, ValueError, FloatingPointError: as ``load_causal``.
    """
    if trained is None:
        return load_causal(model, precision)
    training = Training.from_json(trained.record["config"]["training"])
    return load_causal(model, precision, trained.file(WEIGHTS), training)
