"""Exports of tiny models, and what transformers' stock classes make of them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from tests.testing.tiny_models import tiny_spec
from w2s_ray.data.tokens import Tokens
from w2s_ray.models.backbone import Backbone
from w2s_ray.models.export import (
    export_layout,
    write_export,
)
from w2s_ray.models.inference import scorer_logits
from w2s_ray.models.model_card import Card
from w2s_ray.models.scorer import Scorer
from w2s_ray.models.trainable import set_trainable
from w2s_ray.spec.schema import Lora

LORA = Lora(rank=2, alpha=4.0)
LENGTH = 40
CLASSES = 3


def rows_of_test(per_row: int) -> pa.Table:
    """Twelve rows of texts of very different lengths; some are longer than ``LENGTH``."""
    rng = np.random.default_rng(0)
    words = ["the", "a", "<pad>", "cat,", "sat.", "on", "A\u030auser", "my\n\nHuman:", "1234"]

    def text(count: int) -> str:
        return " ".join(rng.choice(words) for _ in range(count))

    answers = [[text(1 + (i + j) % 5) for j in range(per_row)] for i in range(12)]
    prompts = [text(i) for i in range(12)]
    names = [str(i) for i in range(12)]
    return pa.table({"row_id": names, "prompt": prompts, "answers": answers})


def texts_of(tokens: Tokens) -> list[list[int]]:
    """Prompt and answer of every text, row after row."""
    found = []
    for start, (head, *tails) in zip(tokens.starts, tokens.segments, strict=True):
        prompt, place = tokens.ids[start : start + head], start + head
        for tail in tails:
            found.append([*prompt.tolist(), *tokens.ids[place : place + tail].tolist()])
            place += tail
    return found


def trained(backbone: Backbone, per_row: int, trainable: str) -> Scorer:
    """A scorer of which all that is trained has moved."""
    classes = 2 if per_row == 2 else CLASSES
    scorer = Scorer(backbone.module, backbone.hidden_size, classes, per_row, seed=1)
    generator = torch.Generator().manual_seed(0)
    for parameter in set_trainable(scorer, trainable, LORA, 0):
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return scorer


def card(per_row: int = 2, precision: str = "fp32", **changes: Any) -> Card:
    training = {
        "trainable": "full", "epochs": 1, "batch_size": 2, "learning_rate": 1e-3,
        "precision": precision, "max_length_tokens": LENGTH,
    }  # fmt: skip
    objective = {
        "loss": "symmetric_ce", "loss_parameters": {"a": 1.0, "b": 0.1},
        "confidence_weight": 0.5, "confidence_form": "mixed", "confidence_warmup": 0.2,
    }  # fmt: skip
    config = {
        "training": training, "objective": objective, "seed": 7,
        "noise": {"ratio": 0.25, "strength": 1.0},
    }  # fmt: skip
    classes = 2 if per_row == 2 else CLASSES
    made = Card("student", "hh-key", tiny_spec("gpt2"), config, "hh", per_row, classes)
    return replace(made, **changes)


def export(
    folder: Path,
    backbone: Backbone,
    parameters: Mapping[str, Tensor],
    precision: str = "fp32",
    **options: Any,
) -> Path:
    shapes = {name: tuple(tensor.shape) for name, tensor in parameters.items()}
    layout = export_layout(shapes, backbone.module, precision, LORA)
    write_export(
        folder,
        layout,
        ((name, parameters[name].detach()) for name in layout.sources),
        config=backbone.module.config,
        tokenizer=backbone.tokenizer,
        card=options.pop("card", card(1 if layout.outputs > 1 else 2, precision)),
        **options,
    )
    return folder


def stock_outputs(
    folder: Path, texts: list[list[int]], dtype: Any = torch.float32, batch: int = 64
) -> Tensor:
    """(texts, num_labels) float64 logits of the stock class, ``batch`` padded texts at a time."""
    model, report = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=dtype, output_loading_info=True
    )
    assert not any(report.values()), report
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        parts = [
            model.eval()(
                **tokenizer.pad({"input_ids": texts[i : i + batch]}, return_tensors="pt")
            ).logits
            for i in range(0, len(texts), batch)
        ]
    return torch.cat(parts).double()


def probabilities(outputs: Tensor) -> Tensor:
    """(n, K) of what the stock class gives for n rows; K = 2 where it gives rewards of pairs."""
    if outputs.shape[1] > 1:
        return outputs.softmax(dim=1)
    rewards = outputs.view(-1, 2)
    p = torch.sigmoid(rewards[:, 0] - rewards[:, 1])
    return torch.stack([1 - p, p], dim=1)


def ours(scorer: Scorer, tokens: Tokens) -> Tensor:
    return torch.from_numpy(scorer_logits(scorer, tokens)).double().softmax(dim=1)
