"""A reward model as the checker of a study of generated text: ``study_specs.reward_model:reward``.

The folder or Hub name of a sequence classifier with one output (a reward model as transformers
saves it, with its chat template) is read from the environment variable REWARD_MODEL. The reward of
an answer is σ(score). Any function of (check, prompt, text) can stand in its place.
"""

import os
from collections.abc import Mapping
from functools import cache
from typing import Any


@cache
def _loaded() -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    name = os.environ.get("REWARD_MODEL")
    if not name:
        raise RuntimeError("set REWARD_MODEL to the folder or Hub name of a reward model")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForSequenceClassification.from_pretrained(name, dtype=torch.bfloat16)
    if model.config.num_labels != 1:
        raise RuntimeError(f"{name} has {model.config.num_labels} outputs, expected 1, the reward")
    return model.to(device).eval(), AutoTokenizer.from_pretrained(name)


def reward(check: Mapping[str, Any], prompt: str, text: str) -> float:
    """σ of the reward model's score of the conversation."""
    import torch

    model, tokenizer = _loaded()
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}]
    ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
    with torch.inference_mode():
        score = model(**ids.to(model.device)).logits[0, 0].float()
    return float(torch.sigmoid(score))
