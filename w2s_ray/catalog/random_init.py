"""The full configuration of a model with random weights.

Every field that shapes such a model stands here with its default, so that its identity is complete
and does not move with the defaults of a library. Names are those of Hugging Face configurations;
GPT-2's own spellings (n_embd, …) are accepted and mean the same model. Dropout is not among them:
it is always off.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from w2s_ray.errors import InputError

ARCHITECTURES = ("gpt2", "gpt_neox", "llama", "qwen2")
ALIASES = {
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_positions": "max_position_embeddings",
}
_COMMON: dict[str, Any] = {
    "vocab_size": None,  # the tokenizer's
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": None,  # 4 · hidden_size
    "max_position_embeddings": 2048,
    "initializer_range": 0.02,
}
_ROTARY = {"rope_type": "default", "rope_theta": 10000.0}
DEFAULTS: dict[str, dict[str, Any]] = {
    "gpt2": {
        **_COMMON,
        "max_position_embeddings": 1024,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "scale_attn_by_inverse_layer_idx": False,
    },
    "gpt_neox": {
        **_COMMON,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "use_parallel_residual": True,
        "attention_bias": True,
        "rope_parameters": {**_ROTARY, "partial_rotary_factor": 0.25},
    },
    "llama": {
        **_COMMON,
        "num_key_value_heads": None,  # num_attention_heads
        "head_dim": None,  # hidden_size / num_attention_heads
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "attention_bias": False,
        "mlp_bias": False,
        "rope_parameters": _ROTARY,
    },
    "qwen2": {
        **_COMMON,
        "num_key_value_heads": None,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_parameters": _ROTARY,
    },
}


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
    defaults = DEFAULTS[architecture]
    config = dict(defaults)
    for name, value in given.items():
        field = ALIASES.get(name, name) if architecture == "gpt2" else name
        if field not in defaults:
            near = get_close_matches(name, defaults, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(
                f"model config: {name} is no field of {architecture}, expected one of "
                f"{', '.join(defaults)}{hint}"
            )
        if not _fits(value, defaults[field]):
            raise InputError(f"model config: {name}: {value!r}, expected {_kind(defaults[field])}")
        config[field] = value
    if config["vocab_size"] is None:
        if vocabulary is None:
            raise InputError("model config: expected vocab_size, the tokenizer's is not known here")
        config["vocab_size"] = vocabulary
    if vocabulary is not None and config["vocab_size"] < vocabulary:
        raise InputError(
            f"model config: vocab_size: {config['vocab_size']}, expected at least {vocabulary}, "
            "the number of the tokenizer's ids"
        )
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    if hidden % heads:
        raise InputError(
            f"model config: hidden_size: {hidden}, expected a multiple of "
            f"num_attention_heads, {heads}"
        )
    fallbacks = {
        "intermediate_size": 4 * hidden,
        "num_key_value_heads": heads,
        "head_dim": hidden // heads,
    }
    for name, value in fallbacks.items():
        if name in config and config[name] is None:
            config[name] = value
    if heads % config.get("num_key_value_heads", heads):
        raise InputError(
            f"model config: num_key_value_heads: {config['num_key_value_heads']}, expected a "
            f"divisor of num_attention_heads, {heads}"
        )
    if architecture == "gpt2":  # the one field for which GPT-2 ignores the common name
        config["n_inner"] = config.pop("intermediate_size")
    return config


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, bool | str | dict):
        return isinstance(value, type(default))
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    whole = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return whole or (default is None and value is None)


def _kind(default: Any) -> str:
    names = {bool: "true or false", str: "a name", dict: "a mapping", float: "a number above 0"}
    return names.get(type(default), "a whole number above 0")
