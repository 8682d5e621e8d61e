"""The README of an exported model: what it is, what it was trained on, how to use it.

It is read by people who know nothing of this project, so it explains the few things that a score
depends on: how texts are joined and cut, which token is read, and in which dtype.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from w2s_ray.catalog.digests import hub_id
from w2s_ray.objectives.names import DEFINITIONS
from w2s_ray.spec.schema import ModelSpec

EXPORT = "export"  # the folder, below that of the artifact
ROLES = {
    "weak": "weak supervisor: trained on ground truth",
    "student": "student: trained on the labels of a weaker model",
    "ceiling": "ceiling: trained on ground truth, the most that the student could reach",
}


@dataclass(frozen=True)
class Card:
    """What is told of a model beside its weights. Plain values: it travels by pickle.

    Attributes:
        role: weak, student or ceiling.
        name: slug and key of the step that trained it.
        model: its weights before training.
        config: the step's configuration: training, and for a student objective and noise.
        data: name of the data set.
        per_row: texts of a row: 2 for pairs, 1 for classes.
        num_classes: K; 2 for pairs.
        metrics: numbers by name, e.g. ``test_accuracy``.
        ending_in_pad: texts of the test rows whose last token is the pad token: the stock class
            takes it for padding and reads the token before it.
    """

    role: str
    name: str
    model: ModelSpec
    config: Mapping[str, Any]
    data: str
    per_row: int
    num_classes: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    ending_in_pad: int = 0

    @property
    def pairs(self) -> bool:
        return self.per_row == 2

    def scored(self, logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Self:
        """The card with the results on the test rows: logits (n, K), true classes (n,)."""
        accuracy = float((logits.argmax(axis=1) == labels).mean())
        return replace(self, metrics={**self.metrics, "test_accuracy": accuracy})


def write_card(file: Path, card: Card, precision: str, *, loader: str = "AutoTokenizer") -> None:
    """Writes the model card.

    Args:
        precision: "bf16" or "fp32", of the weights.
        loader: class of transformers that reads the tokenizer.
    """
    parts = [
        _front(card),
        f"# {card.name}",
        _what(card),
        "## Training",
        _training(card),
        *(["## Numbers", _numbers(card)] if card.metrics else []),
        "## Use",
        _use(card, precision, loader),
        "## Licence",
        f"That of the weights it began with: {_base(card.model)}.",
    ]
    file.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _front(card: Card) -> str:
    """YAML; JSON texts are YAML texts."""
    hub = hub_id(card.model.source or "")
    tags = ["weak-to-strong", card.role, "reward-model" if card.pairs else "text-classification"]
    lines = [
        "library_name: transformers",
        "pipeline_tag: text-classification",
        *([f"base_model: {json.dumps(hub)}"] if hub else []),
        "tags:",
        *(f"- {tag}" for tag in tags),
    ]
    return "\n".join(["---", *lines, "---"])


def _what(card: Card) -> str:
    reads = (
        "It gives a text its reward r; of two answers A and B to a prompt, A is preferred with "
        "probability σ(r(A) − r(B))."
        if card.pairs
        else f"It gives a text {card.num_classes} logits, one a class."
    )
    return f"The {ROLES[card.role]}, in a study of weak-to-strong generalization. {reads}"


def _training(card: Card) -> str:
    training = card.config["training"]
    objective = card.config.get("objective", {"loss": "forward_ce", "confidence_weight": 0.0})
    loss = objective["loss"]
    parameters = objective.get("loss_parameters") or {}
    given = "".join(f", {name} = {value:g}" for name, value in parameters.items())
    confidence = f"{objective['confidence_weight']:g}"
    if objective["confidence_weight"]:
        confidence += (
            f" ({objective['confidence_form']}, over the first "
            f"{objective['confidence_warmup']:g} of the steps)"
        )
    noise = card.config.get("noise", {"ratio": 0.0})
    noisy = f"{noise['ratio']:g}"
    if noise["ratio"]:
        noisy += f" of the labels, strength {noise['strength']:g}"
    rows = {
        "step": f"`{card.name}`",
        "base": _base(card.model),
        "data": f"`{card.data}`",
        "learnt from": "soft labels of the weak model" if card.role == "student" else "true labels",
        "loss": f"`{loss}`: {DEFINITIONS[loss].formula}{given} (w label, s prediction)",
        "weight of confidence": confidence,
        "noise": noisy,
        "trained": f"{training['trainable']}, {training['epochs']} epochs, batches of "
        f"{training['batch_size']}, rate {training['learning_rate']:g}",
        "precision": training["precision"],
        "seed": str(card.config["seed"]),
    }
    return _table(rows)


def _numbers(card: Card) -> str:
    return _table({name.replace("_", " "): f"{value:.4g}" for name, value in card.metrics.items()})


def _table(rows: Mapping[str, str]) -> str:
    cells = (f"| {name} | {value.replace('|', '&#124;')} |" for name, value in rows.items())
    return "\n".join(["| | |", "|---|---|", *cells])


def _base(model: ModelSpec) -> str:
    """Its name to others: no folder of the machine it was trained on."""
    if model.source is None:
        base = f"random weights, {model.architecture}"
    elif hub_id(model.source) or model.source.startswith("pypi:"):
        base = f"`{model.source}`"
    else:
        base = f"`{Path(model.source).name}`, a local model"
    return base if model.num_layers is None else f"{base}, its first {model.num_layers} blocks"


def _use(card: Card, precision: str, loader: str) -> str:
    length = int(card.config["training"]["max_length_tokens"])
    notes = [
        "Prompt and answer are tokenised apart, without special tokens, and joined. At most "
        f"{length} tokens were seen in training: longer texts lost the beginning of their prompt, "
        "the same for both answers of a pair." if card.pairs else
        "Texts are tokenised without special tokens. At most "
        f"{length} tokens were seen in training: longer texts lost their beginning.",
        "The score is read at the last token that is not the pad token: pad on the right, and "
        "beware of texts that end in the pad token itself, whose score is that of the text "
        f"without it ({card.ending_in_pad} of the test texts do).",
    ]  # fmt: skip
    if precision == "bf16":
        notes.append(
            "The backbone is stored in bfloat16, in which it was computed with; the head in "
            "float32. Loaded as above the head is rounded to bfloat16 too, with "
            "`dtype=torch.float32` nothing is, at twice the memory. Either way probabilities "
            "differ by some thousandths from those of training, whose sums were rounded in "
            "another order; with float32, which rounds none, by somewhat more."
        )
    dtype = "" if precision == "bf16" else ", dtype=torch.float32"
    code = _SNIPPET[card.pairs].format(length=length, loader=loader, dtype=dtype)
    return "\n\n".join([code, *notes])


_BEGIN = """```python
import torch
from transformers import AutoModelForSequenceClassification, {loader}

folder = "."  # of this file
tokenizer = {loader}.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder{dtype})
model.eval()
"""
_SNIPPET = {
    True: _BEGIN
    + """

def rewards(prompt, answers):
    head, *tails = (
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, *answers)
    )
    room = max(0, {length} - max(map(len, tails)))
    texts = [head[max(0, len(head) - room) :] + tail[-{length}:] for tail in tails]
    batch = tokenizer.pad({{"input_ids": texts}}, padding_side="right", return_tensors="pt")
    with torch.no_grad():
        return model(**batch).logits[:, 0].float()


a, b = rewards("How are you?", [" Well, thank you.", " Go away."])
p_a_is_preferred = torch.sigmoid(a - b).item()
```""",
    False: _BEGIN
    + """

def probabilities(texts):
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"][-{length}:] for text in texts]
    batch = tokenizer.pad({{"input_ids": ids}}, padding_side="right", return_tensors="pt")
    with torch.no_grad():
        return model(**batch).logits.float().softmax(dim=1)


p = probabilities(["A text.", "Another text."])
```""",
}
