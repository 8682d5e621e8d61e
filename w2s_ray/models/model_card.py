"""The README of an exported model: what it is, how it was trained, how to use it.

Its readers need not know this project, so it explains the few things that a score depends on: how
texts are joined and truncated, which token is read, and in which dtype.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from w2s_ray.catalog.digests import hub_id
from w2s_ray.foreign.markdown import code_span
from w2s_ray.objectives.names import DEFINITIONS
from w2s_ray.spec.schema import ModelSpec

EXPORT = "export"  # folder of an exported model, in the folder of its artifact
ROLES = {
    "weak": "weak supervisor: trained on ground truth",
    "student": "student: trained on the labels of a weaker model",
    "ceiling": "ceiling: trained on ground truth, an upper bound for the student",
}


@dataclass(frozen=True)
class Card:
    """What the README states about a model. It holds plain values, so that it can be pickled.

    Attributes:
        role: weak, student or ceiling.
        name: slug and key of the step that trained it.
        model: the model before training.
        config: the step's configuration: training, and for a student objective and noise.
        data: name of the data set.
        per_row: texts of a row: 2 for pairs, 1 for classes.
        num_classes: K; 2 for pairs.
        metrics: numbers by name, e.g. ``test_accuracy``.
        classes: their names in order; empty for pairs.
        ending_in_pad: number of test texts whose last token is the pad token, which the stock
            class takes for padding: it reads the token before it.
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
    classes: tuple[str, ...] = ()

    @property
    def pairs(self) -> bool:
        return self.per_row == 2

    def scored(self, logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Self:
        """The card with the accuracy on the test rows: logits (n, K), true classes (n,)."""
        accuracy = float((logits.argmax(axis=1) == labels).mean())
        return replace(self, metrics={**self.metrics, "test_accuracy": accuracy})


def write_card(
    file: Path,
    card: Card,
    precision: str,
    *,
    loader: str = "AutoTokenizer",
    in_pieces: bool = True,
) -> None:
    """Writes the model card.

    Args:
        precision: "bf16" or "fp32", of the weights.
        loader: class of transformers that loads the tokenizer.
        in_pieces: whether prompt and answer are tokenised separately in transcripts.
    """
    parts = [
        _front_matter(card),
        f"# {card.name}",
        _description(card),
        "## Training",
        _training(card),
        *(["## Numbers", _numbers(card)] if card.metrics else []),
        "## Use",
        _use(card, precision, loader, in_pieces),
        "## Licence",
        f"The licence of the base model: {base_of(card.model)}.",
    ]
    file.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _front_matter(card: Card) -> str:
    """YAML for the Hub; every JSON string is a YAML string."""
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


def _description(card: Card) -> str:
    names = ", ".join(map(code_span, card.classes))
    output = f"It returns {card.num_classes} logits for a text, one per class."
    output += f" The classes in order: {names}." if names else ""
    if card.pairs:
        output = (
            "It returns a reward r for a text; of two answers A and B to a prompt, A is preferred "
            "with probability σ(r(A) − r(B))."
        )
    return f"The {ROLES[card.role]}, in a study of weak-to-strong generalization. {output}"


def _training(card: Card) -> str:
    training = card.config["training"]
    objective = card.config.get("objective", {"loss": "forward_ce", "confidence_weight": 0.0})
    loss = objective["loss"]
    parameters = objective.get("loss_parameters") or {}
    values = "".join(f", {name} = {value:g}" for name, value in parameters.items())
    confidence = f"{objective['confidence_weight']:g}"
    if objective["confidence_weight"]:
        confidence += (
            f" ({objective['confidence_form']}, over the first "
            f"{objective['confidence_warmup']:g} of the steps)"
        )
    noise = card.config.get("noise", {"ratio": 0.0})
    noise_text = f"{noise['ratio']:g}"
    if noise["ratio"]:
        noise_text += f" of the labels, strength {noise['strength']:g}"
    rows = {
        "step": f"`{card.name}`",
        "base": base_of(card.model),
        "data": f"`{card.data}`",
        "trained on": "soft labels of the weak model" if card.role == "student" else "true labels",
        "loss": f"`{loss}`: {DEFINITIONS[loss].formula}{values} (w label, s prediction)",
        "confidence weight": confidence,
        "noise": noise_text,
        **({"labels": treated} if (treated := _treated(card.config)) else {}),
        "training": f"{training['trainable']}, {training['epochs']} epochs, batch size "
        f"{training['batch_size']}, learning rate {training['learning_rate']:g}",
        "precision": training["precision"],
        "seed": str(card.config["seed"]),
    }
    return _table(rows)


def _treated(config: Mapping[str, Any]) -> str:
    """What else was done to the labels; a field that is absent does nothing."""
    kept = config.get("label_filter")
    parts = {
        "temperature {:g}": config.get("label_temperature"),
        "replaced by {}": config.get("relabel"),
        "the share {0[keep]:g} with the best by {0[by]}": kept,
        "weighed by {}": config.get("example_weight"),
        "all but the share {:g}, which calibrates the model": config.get("held_out"),
    }
    return "; ".join(text.format(value) for text, value in parts.items() if value is not None)


def _numbers(card: Card) -> str:
    return _table({name.replace("_", " "): f"{value:.4g}" for name, value in card.metrics.items()})


def _table(rows: Mapping[str, str]) -> str:
    escaped = {name: value.replace("|", r"\|") for name, value in rows.items()}
    cells = (f"| {name} | {value} |" for name, value in escaped.items())
    return "\n".join(["| | |", "|---|---|", *cells])


def base_of(model: ModelSpec) -> str:
    """The base model's public name, without folders of the machine it was trained on."""
    if model.source is None:
        base = f"random weights, {model.architecture}"
    elif hub_id(model.source) or model.source.startswith("pypi:"):
        base = code_span(model.source)
    else:
        base = f"{code_span(Path(model.source).name)}, a local model"
    return base if model.num_layers is None else f"{base}, its first {model.num_layers} blocks"


def _use(card: Card, precision: str, loader: str, in_pieces: bool) -> str:
    training = card.config["training"]
    length, bos = int(training["max_length_tokens"]), bool(training.get("bos", False))
    is_chat = training.get("render") == "chat_template"
    way = "chat" if is_chat else "pieces" if in_pieces else "whole"
    notes = [
        _truncation(card.pairs, length, way, bos),
        "The score is read at the last token that is not the pad token: pad on the right, and "
        "beware of texts that end in the pad token itself, whose score is that of the text "
        f"without it ({card.ending_in_pad} of the test texts do).",
    ]
    if precision == "bf16":
        notes.append(
            "The backbone is stored in bfloat16, the dtype it was trained in; the head in float32. "
            "Loaded as above, the head is rounded to bfloat16 too; with `dtype=torch.float32` "
            "nothing is rounded, at twice the memory. Either way probabilities differ by some "
            "thousandths from those of training, whose sums were rounded in another order; with "
            "float32, which does not round them, by somewhat more."
        )
    dtype = "" if precision == "bf16" else ", dtype=torch.float32"
    code = (_PAIRS if card.pairs else _CLASSES).format(
        loader=loader,
        dtype=dtype,
        tokens=(_PAIR_TOKENS[way] if card.pairs else _TEXT_TOKENS[way]).format(length=length - bos),
        bos=_BOS if bos else "",
        imports="import os.path\n\n" if card.pairs and way != "pieces" else "",
        prompt="messages" if is_chat else "prompt",
        question='[{"role": "user", "content": "How are you?"}]' if is_chat else '"How are you?"',
        blank="" if is_chat else " ",
    )
    return "\n\n".join([code, *notes])


def _truncation(pairs: bool, length: int, way: str, bos: bool) -> str:
    """How texts were tokenised and truncated in training."""
    special = (
        "beginning with the BOS token, which is never cut" if bos else "without special tokens"
    )
    texts = "Texts are"
    if way == "chat":
        texts = "Conversations are rendered by the chat template of the tokenizer and"
        special = "without further special tokens"
    elif pairs and way == "pieces":
        texts, special = "Prompt and answer are", f"separately, {special}, and joined"
    elif pairs:
        texts = "Prompt and answer are joined and"
    cut = "the beginning of their prompt, the same for both answers of a pair" if pairs else ""
    return (
        f"{texts} tokenised {special}. In training they had at most {length} tokens: longer texts "
        f"lost {cut or 'their beginning'}."
    )


_BEGIN = """```python
{imports}import torch
from transformers import AutoModelForSequenceClassification, {loader}

folder = "."  # of this file
tokenizer = {loader}.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder{dtype})
model.eval()

"""
_PAIRS = (
    _BEGIN
    + """
def rewards({prompt}, answers):
{tokens}{bos}
    batch = tokenizer.pad({{"input_ids": texts}}, padding_side="right", return_tensors="pt")
    with torch.no_grad():
        return model(**batch).logits[:, 0].float()


a, b = rewards({question}, ["{blank}Well, thank you.", "{blank}Go away."])
p_a_is_preferred = torch.sigmoid(a - b).item()
```"""
)
_CLASSES = (
    _BEGIN
    + """
def probabilities(texts):
{tokens}{bos}
    batch = tokenizer.pad({{"input_ids": texts}}, padding_side="right", return_tensors="pt")
    with torch.no_grad():
        return model(**batch).logits.float().softmax(dim=1)


p = probabilities(["A text.", "Another text."])
```"""
)
_BOS = """
    texts = [[tokenizer.bos_token_id, *ids] for ids in texts]"""
_SHARED = """
    texts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    shared = min(len(os.path.commonprefix(texts)), min(map(len, texts)) - 1)
    cut = min(shared, max(0, max(map(len, texts)) - {length}))
    texts = [ids[cut:][-{length}:] for ids in texts]"""
_PAIR_TOKENS = {
    "pieces": """\
    head, *tails = (
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, *answers)
    )
    room = max(0, {length} - max(map(len, tails)))
    texts = [head[max(0, len(head) - room) :] + tail[-{length}:] for tail in tails]""",
    "whole": """\
    texts = [prompt + answer for answer in answers]"""
    + _SHARED,
    "chat": """\
    chats = [[*messages, {{"role": "assistant", "content": answer}}] for answer in answers]
    texts = [tokenizer.apply_chat_template(chat, tokenize=False) for chat in chats]"""
    + _SHARED,
}
_TEXT = """\
    texts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    texts = [ids[-{length}:] for ids in texts]"""
_TEXT_TOKENS = {
    "pieces": _TEXT,
    "whole": _TEXT,
    "chat": """\
    chats = [[{{"role": "user", "content": text}}] for text in texts]
    texts = [tokenizer.apply_chat_template(chat, tokenize=False) for chat in chats]
"""
    + _TEXT,
}
