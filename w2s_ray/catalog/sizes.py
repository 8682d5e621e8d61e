"""Sizes in a model's configuration: whole numbers within limits, before anything uses them.

A plan makes a model without values to measure it, so a configuration of ten million blocks would
not end, and one with a text for a number would fail somewhere else.
"""

from collections.abc import Mapping
from typing import Any

from w2s_ray.errors import InputError
from w2s_ray.foreign.limits import exceeded, limit
from w2s_ray.printable import shortened

_LIMIT_OF = {
    "num_hidden_layers": "model.blocks",
    "hidden_size": "model.width",
    "intermediate_size": "model.width",
    "head_dim": "model.width",
    "num_attention_heads": "model.heads",
    "num_key_value_heads": "model.heads",
    "vocab_size": "model.vocabulary",
    "max_position_embeddings": "model.positions",
}


def check_sizes(config: Mapping[str, Any], name: str, *, strict: bool) -> None:
    """Refuses sizes that are no whole numbers from 1 to their limit; null and absence are allowed.

    Args:
        config: fields by the names that Hugging Face configurations share.
        name: of the model, at the start of the message.
        strict: whether each size is one number; other architectures also have lists of them.

    Raises:
        InputError: a size is wrong; the message names the field.
    """
    for field, bound in _LIMIT_OF.items():
        given = config.get(field)
        if given is None:
            continue
        for size in given if isinstance(given, list | tuple) and not strict else [given]:
            is_whole = isinstance(size, int) and not isinstance(size, bool)
            if strict and not (is_whole and size >= 1):
                raise InputError(
                    f"model {name}: {field}: given {shortened(repr(size), 100)}, expected a whole "
                    "number of at least 1"
                )
            if is_whole and size > limit(bound):
                raise InputError(f"model {name}: {field}: {exceeded(bound, size)}")


def check_parameters(count: int, name: str) -> None:
    """Refuses a model of more parameters than the limit.

    Raises:
        InputError: it has more.
    """
    if count > limit("model.parameters"):
        raise InputError(f"model {name}: {exceeded('model.parameters', count)}")
