"""A trained scorer as a folder that transformers loads by its own name.

``AutoModelForSequenceClassification.from_pretrained(folder)`` gives the reward of a text where rows
are pairs (num_labels 1; P(A preferred) = σ(r(A) − r(B))), its K logits where they are classes.

    layout = export_layout(shapes, config, precision, lora)      # from names and shapes alone
    write_export(folder, layout, engine.whole(layout.sources), config=…, tokenizer=…, card=…)

``layout.sources`` says in which order the scorer's parameters are wanted, whole, one at a time;
no more than the few that make one tensor (a weight and its adapter) are held at once. Ranks that
write nothing pass None for the folder: they go through the same parameters.

What the stock classes read otherwise than we do is dealt with here: adapters are merged; a bias of
classes, which they have no place for, goes into the bias of the final norm where there is one.
"""

from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerFast

from w2s_ray.data.tokens import Tokens
from w2s_ray.errors import InputError
from w2s_ray.models.backbone import PRECISIONS
from w2s_ray.models.model_card import Card, write_card
from w2s_ray.models.weight_files import SHARD_BYTES, Kinds, write_weights
from w2s_ray.spec.schema import Lora

_ADAPTERS = (  # of linear layers, of embeddings
    ("lora_A.default.weight", "lora_B.default.weight"),
    ("lora_embedding_A.default", "lora_embedding_B.default"),
)
_PROBE = "A\u030a  probe:\n\n\tHuman's 1234 \u00e9\u00e8 \ufb01\u2026 {'x': 0.5}\r\n \U0001f600"


@dataclass(frozen=True)
class Stock:
    """A class of transformers: its name, that of its backbone in it, and of the bias, in the
    backbone, of the final norm (None: the norm has none)."""

    name: str
    backbone: str
    norm_bias: str | None


STOCK = {
    "gpt2": Stock("GPT2ForSequenceClassification", "transformer", "ln_f.bias"),
    "gpt_neox": Stock("GPTNeoXForSequenceClassification", "gpt_neox", "final_layer_norm.bias"),
    "llama": Stock("LlamaForSequenceClassification", "model", None),
    "qwen2": Stock("Qwen2ForSequenceClassification", "model", None),
}

Recipe = Literal["as it is", "merged", "merged, transposed", "with the head's bias"]


@dataclass(frozen=True)
class Target:
    """One tensor of the export.

    Attributes:
        name: in the stock class.
        sources: parameters of the scorer that it is made of, in the order in which they come.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    sources: tuple[str, ...]
    recipe: Recipe = "as it is"


@dataclass(frozen=True)
class Layout:
    """All tensors of the export, in order.

    Attributes:
        precision: "bf16" or "fp32", of the backbone.
        outputs: 1 for pairs, K for classes.
        scale: of the adapters' products.
    """

    targets: tuple[Target, ...]
    precision: str
    outputs: int
    scale: float

    @property
    def sources(self) -> list[str]:
        """The scorer's parameters in the order in which they are wanted; a name may stand twice,
        but only where a head has a bias (``training.heads``)."""
        return [name for target in self.targets for name in target.sources]

    @property
    def kinds(self) -> Kinds:
        return {target.name: (target.dtype, target.shape) for target in self.targets}


def check_exportable(architecture: str, trainable: str, per_row: int) -> None:
    """Whether the stock class can hold such a model; asked before anything is spent.

    Args:
        architecture: gpt2, gpt_neox, llama or qwen2.
        trainable: full, lora or last_layer.
        per_row: texts of a row, 2 for pairs.

    Raises:
        InputError: it cannot.
    """
    if trainable == "last_layer" and per_row == 1 and STOCK[architecture].norm_bias is None:
        raise InputError(
            f"execution.export_models: a last layer for classes on {architecture} cannot be "
            f"exported: its bias has no place in {STOCK[architecture].name}, whose head and final "
            "norm have none; expected trainable full or lora, or a gpt2 or gpt_neox model",
            ("execution", "export_models"),
        )


def export_layout(
    shapes: Mapping[str, tuple[int, ...]],
    config: PreTrainedConfig,
    precision: str,
    lora: Lora | None = None,
) -> Layout:
    """What is to be written, and of what.

    Args:
        shapes: whole shape of every parameter of the scorer by name, ``backbone.…`` and ``head.…``.
        config: of the backbone.
        precision: "bf16" or "fp32", that of the training. The head stays in float32 in the file.
        lora: its rank and alpha, where ``shapes`` has adapters.

    Raises:
        InputError: the head has a bias that the stock class cannot hold.
    """
    stock, dtype = STOCK[config.model_type], PRECISIONS[precision]
    biased = "head.bias" in shapes
    if biased:
        check_exportable(config.model_type, "last_layer", per_row=1)
    targets: list[Target] = []
    for name, shape in shapes.items():
        if "lora_" in name or not name.startswith("backbone."):
            continue
        own = name.removeprefix("backbone.")
        plain = f"{stock.backbone}.{own.replace('.base_layer.', '.')}"
        adapter = _adapter(name, shapes)
        if biased and own == stock.norm_bias:
            made = Target(
                plain, torch.float32, shape, (name, "head.weight", "head.bias"),
                "with the head's bias",
            )  # fmt: skip
        elif adapter:
            # GPT-2 keeps the weights of its layers as (in, out), as embeddings are kept
            turned = config.model_type == "gpt2" or "embedding" in adapter[0]
            recipe: Recipe = "merged, transposed" if turned else "merged"
            made = Target(plain, dtype, shape, (name, *adapter), recipe)
        else:
            made = Target(plain, dtype, shape, (name,))
        targets.append(made)
    head = shapes["head.weight"]
    targets.append(Target("score.weight", torch.float32, head, ("head.weight",)))
    scale = lora.alpha / lora.rank if lora is not None else 0.0
    return Layout(tuple(targets), precision, head[0], scale)


def write_export(
    folder: Path | None,
    layout: Layout,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerFast,
    card: Card,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes weights, config.json, tokenizer and README.md into ``folder``, which is made.

    Args:
        folder: None: nothing is written, but ``tensors`` are gone through, as every rank must.
        tensors: the parameters ``layout.sources``, whole, in that order.
        config: of the backbone; not changed.
        tokenizer: with a pad token.
        shard_bytes: most bytes of a weight file.

    Raises:
        ValueError: other parameters than were asked for, or a bias that cannot be moved.
        OSError: the disk is full, or something else is wrong with it.
    """
    if folder is None:
        for _ in tensors:
            pass
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder, layout.kinds, _made(layout, iter(tensors)), shard_bytes=shard_bytes)
    stock_config(config, layout, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_card(folder / "README.md", card, layout.precision, loader=_loader(folder, tokenizer))


def ending_in_pad(tokens: Tokens, pad_token_id: int) -> int:
    """Texts that the stock classes misread: their last token is the pad token, which is taken for
    padding."""
    ends = tokens.starts[:, None] + tokens.segments.cumsum(axis=1)
    prompt_end, ends = ends[:, :1], ends[:, 1:]
    ends = np.where(tokens.segments[:, 1:] > 0, ends, prompt_end)  # an answer may be empty
    return int((tokens.ids[ends - 1] == pad_token_id).sum())


def stock_config(
    config: PreTrainedConfig, layout: Layout, tokenizer: PreTrainedTokenizerFast
) -> PreTrainedConfig:
    """The configuration of the stock class: the backbone's, without what is ours in it."""
    stock: Any = deepcopy(config)
    stock._attn_implementation = None
    stock._name_or_path = ""  # a folder of this machine
    stock.architectures = [STOCK[config.model_type].name]
    stock.dtype = PRECISIONS[layout.precision]
    stock.use_cache = True
    stock.pad_token_id = tokenizer.pad_token_id
    pairs = layout.outputs == 1
    names = ["reward"] if pairs else [f"LABEL_{place}" for place in range(layout.outputs)]
    stock.id2label = dict(enumerate(names))
    stock.label2id = {name: place for place, name in enumerate(names)}
    stock.problem_type = None if pairs else "single_label_classification"
    return stock  # type: ignore[no-any-return]


def _adapter(name: str, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    """Names of A and B of an adapted weight; () where it has no adapter."""
    if not name.endswith("base_layer.weight"):
        return ()
    module = name.removesuffix("base_layer.weight")
    for pair in _ADAPTERS:
        names = tuple(f"{module}{factor}" for factor in pair)
        if names[0] in shapes:
            return names
    raise ValueError(f"{name}: an adapter of a kind that is not known")


def _made(layout: Layout, coming: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of the export, from the scorer's parameters."""
    for target in layout.targets:
        parts = []
        for expected in target.sources:
            name, tensor = next(coming, ("nothing", torch.empty(0)))
            if name != expected:
                raise ValueError(f"export: {name} came, expected {expected}")
            parts.append(tensor)
            del tensor  # nothing is held beyond its use
        yield target.name, _make(target, parts, layout.scale).to(target.dtype)
    for name, _ in coming:
        raise ValueError(f"export: {name} was not to come")


@torch.no_grad()
def _make(target: Target, parts: list[Tensor], scale: float) -> Tensor:
    """In float32, but for what stays as it is."""
    if target.recipe == "as it is":
        return parts[0]
    if target.recipe == "with the head's bias":
        return with_bias(*parts)
    weight, down, up = (part.float() for part in parts)
    if target.recipe == "merged, transposed":
        return torch.addmm(weight, down.T, up.T, alpha=scale)
    return torch.addmm(weight, up, down, alpha=scale)


def with_bias(norm_bias: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The final norm's bias β that makes ``weight`` alone give what it gave with ``bias``.

    β + W⁺b, the smallest change with W(β + W⁺b) = Wβ + b. What all classes have in common changes
    no probability: it is taken out first, so that a head whose rows add up to 0 (as one trained
    from 0 does) has its bias in the span of its weights.

    Args:
        norm_bias: (H,).
        weight: (K, H) of the head.
        bias: (K,) of the head.

    Returns:
        (H,) float32; the probabilities are kept, the logits up to what all have in common.

    Raises:
        ValueError: the bias is not in the span, e.g. two classes with equal weights.
    """
    centred = weight.double() - weight.double().mean(dim=0)
    wanted = bias.double() - bias.double().mean()
    change = torch.linalg.pinv(centred) @ wanted
    left = float((centred @ change - wanted).abs().max())
    if left > 1e-6 * max(1.0, float(wanted.abs().max())):
        raise ValueError(
            f"export: {left:g} of the head's bias is outside the span of its weights, and cannot "
            "be moved into the final norm"
        )
    moved: Tensor = (norm_bias.double() + change).float()
    return moved


def _loader(folder: Path, tokenizer: PreTrainedTokenizerFast) -> str:
    """The class that reads the tokenizer back as it is. ``AutoTokenizer`` takes every tokenizer
    beside a qwen2 model for Qwen's own, which it rebuilds with another normalisation."""
    found = AutoTokenizer.from_pretrained(folder)
    same = _ids(found) == _ids(tokenizer)
    return "AutoTokenizer" if same else "PreTrainedTokenizerFast"


def _ids(tokenizer: Any) -> list[int]:
    ids: list[int] = tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
    return ids
