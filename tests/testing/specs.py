"""A study of random models on generated data, small enough to run in a second."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

TINY_MODEL = {"init": "random", "architecture": "llama", "tokenizer": "bytes"}


def tiny_config(width: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
    }


def tiny_spec(**changes: object) -> dict[str, object]:
    """A complete study of random models on generated data; ``changes`` replace whole sections
    or, as ``section__field``, single fields."""
    spec: dict[str, object] = {
        "study": "tiny",
        "store": "store",
        "data": {
            "pairs": {
                "kind": "preference",
                "source": "generate:agreement",
                "sizes": {"ground_truth": 48, "weak": 40, "test": 32},
            }
        },
        "models": {
            "small": {**TINY_MODEL, "config": tiny_config(16)},
            "large": {**TINY_MODEL, "config": tiny_config(32)},
        },
        "grid": {
            "pair": [["small", "large"]],
            "loss": ["forward_kl", "reverse_kl"],
            "noise_ratio": [0.0, 0.25],
            "trainable": ["last_layer"],
            "seed": [0],
        },
        "training": {"precision": "fp32", "max_length_tokens": 128, "batch_size": 8},
    }
    for name, value in changes.items():
        section, _, field = name.partition("__")
        if field:
            spec[section] = {**spec.get(section, {}), field: value}  # type: ignore[dict-item]
        else:
            spec[section] = value
    return spec
