"""Small studies of generated text: random models of bytes, and a checker of our own.

A random model hardly ever draws its end token, so some letters end its answers too.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

GOOD, BAD = "abcdefghijklm", "nopqrstuvwxyz"
SAMPLING = {"max_new_tokens": 40, "stop": list("!#%')+-/"), "temperature": 1.0}
CHECKER = "tests.testing.text_checks:has_many_low_letters"


def tiny_model(seed: int = 0, width: int = 32) -> dict[str, Any]:
    config = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.1,
    }
    return {"init": "random", "architecture": "llama", "config": config, "init_seed": seed}


def text_spec(folder: Path, **sections: Any) -> Path:
    """Writes a spec with its prompts into a folder; ``sections`` replace those of the spec."""
    folder.mkdir(parents=True, exist_ok=True)
    prompts = folder / "prompts.jsonl"
    lines = [json.dumps({"prompt": f"tell me {number}: ", "check": {}}) for number in range(24)]
    prompts.write_text("\n".join(lines) + "\n")
    half = [chr(code) for code in range(1, 127, 2)]
    sampling = {"max_new_tokens": 16, "stop": half, "temperature": 1.0}
    content = {
        "study": "tiny-text",
        "task": "generation",
        "store": str(folder / "store"),
        "prompts": {
            "source": "prompts.jsonl",
            "sizes": {"align": 8, "train": 8, "test": 6, "transfer": 2},
            "checker": CHECKER,
        },
        "models": {
            "weak": tiny_model(0),
            "strong": tiny_model(1, 48),
            "outside": tiny_model(2),
        },
        "grid": {"pair": [["weak", "strong"]], "method": ["untrained", "weak_sft", "cong_s"]},
        "pairs": {"samples": 6, "length_tolerance": 1.0},
        "decoding": sampling,
        "evaluation": {**sampling, "samples": 2, "perplexity_model": "outside"},
        "align": {"learning_rate": 1e-3, "batch_size": 4},
        "finetune": {"learning_rate": 1e-3, "batch_size": 4},
        "prefer": {"learning_rate": 1e-3, "batch_size": 4},
        "training": {"precision": "fp32", "max_length_tokens": 64, "render": "transcript"},
    }
    spec = folder / "spec.yaml"
    spec.write_text(yaml.safe_dump({**content, **sections}, sort_keys=False))
    return spec


def texts(folder: Path, count: int = 240) -> Path:
    """Texts whose last words say what they are; both classes begin alike. The words are of two
    letters, such as random models of bytes write now and then."""
    rng, file = np.random.default_rng(0), folder / "texts.jsonl"
    rows = []
    for number in range(count):
        good = number % 2 == 0
        first, second = (
            rng.choice(list(GOOD if good else BAD), 12),
            rng.choice(list(GOOD + BAD), 12),
        )
        words = [a + b for a, b in zip(first, second, strict=True)]
        rows.append({"text": f"film {number} is {' '.join(words)}", "label": int(good)})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def classified_spec(folder: Path, **of: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    prompts = {
        "source": str(texts(folder)),
        "sizes": {"align": 8, "train": 6, "test": 6},
        "classifier": {"words": 3, **of.pop("classifier", {})},
    }
    prompts["sizes"] |= of.pop("sizes", {})
    grid = {"pair": [["weak", "strong"]], "method": ["best_of_n", "weak_sft"]}
    decoding = {"decoding": SAMPLING, "evaluation": {**SAMPLING, "perplexity_model": "outside"}}
    return text_spec(folder, prompts=prompts, grid=grid, **{**decoding, **of})
