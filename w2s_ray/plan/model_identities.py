"""What the models of a spec are to the keys of the steps that read them."""

from collections.abc import Mapping
from typing import Any

from w2s_ray.catalog.identity import template_identity, weights_identity
from w2s_ray.catalog.shapes import shape
from w2s_ray.errors import InputError, at
from w2s_ray.spec.generation import TextTraining
from w2s_ray.spec.inputs import ModelSpec
from w2s_ray.spec.training import Training


def model_identities(
    models: Mapping[str, ModelSpec], settings: Training | TextTraining, plain: str | None = None
) -> dict[str, dict[str, Any]]:
    """What the weights of each model are, and the chat template if the spec renders texts by it.

    Args:
        plain: name of a model that reads no prompts by a template of its own.

    Raises:
        InputError: a model is unreadable, or has fewer positions than it is to read tokens.
    """
    return {name: _identity(name, model, settings, name == plain) for name, model in models.items()}


def _identity(
    name: str, model: ModelSpec, settings: Training | TextTraining, is_plain: bool
) -> dict[str, Any]:
    wanted = settings.max_length_tokens
    with at("models", name):
        known = shape(model)
        if known is not None and wanted > known.max_positions:
            raise InputError(
                f"training.max_length_tokens: given {wanted}, expected at most "
                f"{known.max_positions}, the positions of model {name!r}",
                ("training", "max_length_tokens"),
            )
        identity = weights_identity(model)
        if settings.render == "chat_template" and not is_plain:
            identity |= template_identity(model)
        return identity
