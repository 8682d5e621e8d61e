"""The full configuration of a model with random weights.

Every field that shapes such a model has its default in the architecture's record, so that the
model's identity is complete and does not move with the defaults of a library. Names are those of
Hugging Face configurations; GPT-2's own spellings (n_embd, …) are accepted and mean the same model.
Dropout is not among them: it is always off.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from w2s_ray.catalog.architectures import ARCHITECTURES, Architecture
from w2s_ray.catalog.sizes import check_sizes
from w2s_ray.errors import InputError


def complete_config(
    architecture: str, given: Mapping[str, Any], vocabulary: int | None
) -> dict[str, Any]:
    """``given`` with every other field filled in, by the names that the architecture reads.

    Args:
        architecture: one of ``ARCHITECTURES``.
        given: fields by name.
        vocabulary: number of ids of the tokenizer; None where it cannot be known.

    Raises:
        InputError: unknown field, wrong type, sizes that do not divide, too small a vocabulary.
    """
    family = ARCHITECTURES[architecture]
    config = {**family.defaults, **_checked(family, given)}
    check_sizes(config, "config", strict=True)
    config["vocab_size"] = _vocab_size(config["vocab_size"], vocabulary)
    _fill_sizes(config)
    for common, own in family.own_names.items():
        config[own] = config.pop(common)
    return config


def _checked(family: Architecture, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given fields by common name, each of them a field of the family and of its type."""
    defaults = family.defaults
    fields: dict[str, Any] = {}
    for name, value in given.items():
        field = family.aliases.get(name, name)
        if field not in defaults:
            near = get_close_matches(name, defaults, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(
                f"model config: {name} is no field of {family.name}, expected one of "
                f"{', '.join(defaults)}{hint}"
            )
        if not _has_type_of(defaults[field], value):
            expected = _type_name(defaults[field])
            raise InputError(f"model config: {name}: {value!r}, expected {expected}")
        fields[field] = value
    return fields


def _vocab_size(given: int | None, tokenizer_ids: int | None) -> int:
    """Rows of the embedding: at least one for every id of the tokenizer."""
    size = tokenizer_ids if given is None else given
    if size is None:
        raise InputError(
            "model config: expected vocab_size, because the tokenizer's size cannot be read here"
        )
    if tokenizer_ids is not None and size < tokenizer_ids:
        raise InputError(
            f"model config: vocab_size: {size}, expected at least {tokenizer_ids}, "
            "the number of the tokenizer's ids"
        )
    return size


def _fill_sizes(config: dict[str, Any]) -> None:
    """Derives the sizes that are not given; refuses those that do not divide."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    if hidden % heads:
        raise InputError(
            f"model config: hidden_size: {hidden}, expected a multiple of "
            f"num_attention_heads, {heads}"
        )
    derived = {
        "intermediate_size": 4 * hidden,
        "num_key_value_heads": heads,
        "head_dim": hidden // heads,
    }
    for name, value in derived.items():
        if name in config and config[name] is None:
            config[name] = value
    if heads % config.get("num_key_value_heads", heads):
        raise InputError(
            f"model config: num_key_value_heads: {config['num_key_value_heads']}, expected a "
            f"divisor of num_attention_heads, {heads}"
        )


def _has_type_of(default: Any, value: Any) -> bool:
    """Whether a value has the type of a field's default; None stands for a derived whole number."""
    if isinstance(default, bool | str | dict):
        return isinstance(value, type(default))
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    whole = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return whole or (default is None and value is None)


def _type_name(default: Any) -> str:
    names = {bool: "true or false", str: "a name", dict: "a mapping", float: "a number above 0"}
    return names.get(type(default), "a whole number above 0")
