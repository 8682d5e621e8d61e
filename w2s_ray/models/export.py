"""Writes a trained scorer as a folder that transformers loads with its own class.

``AutoModelForSequenceClassification.from_pretrained(folder)`` returns the reward of a text where
rows are pairs (num_labels 1; P(A preferred) = σ(r(A) − r(B))), its K logits where they are classes.

    layout = export_layout(shapes, config, precision, lora)      # from names and shapes alone
    write_export(folder, layout, engine.whole(layout.sources), config=…, tokenizer=…, card=…)

``layout.sources`` is the order in which the scorer's parameters must come, whole, one at a time;
at most those that make one tensor (a weight and its adapter) are in memory at once. Ranks that
write nothing pass None for the folder: they iterate over the same parameters.

The stock classes differ from our scorer in two ways: they have no adapters, so these are merged;
and their head has no bias, so a bias of classes moves into the final norm's bias where it has one.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from w2s_ray.data.joining import loaded_joins_exactly
from w2s_ray.data.tokens import Tokens
from w2s_ray.errors import InputError
from w2s_ray.models.model_card import Card, write_card
from w2s_ray.models.structure import PRECISIONS, stock_of, transposed_layers
from w2s_ray.models.weight_files import SHARD_BYTES, Kinds, write_weights
from w2s_ray.spec.schema import Lora

_ADAPTERS = (  # parameters A and B of linear layers, and of embeddings
    ("lora_A.default.weight", "lora_B.default.weight"),
    ("lora_embedding_A.default", "lora_embedding_B.default"),
)
_PROBE = "A\u030a  probe:\n\n\tHuman's 1234 \u00e9\u00e8 \ufb01\u2026 {'x': 0.5}\r\n \U0001f600"


_CODE = ("auto_map", "custom_pipelines")  # fields with which a configuration names Python code


Recipe = Literal["unchanged", "merged", "merged, transposed", "with the head's bias"]


@dataclass(frozen=True)
class Target:
    """One tensor of the export.

    Attributes:
        name: in the stock class.
        sources: parameters of the scorer that it is computed from, in the order they come in.
        recipe: how it is computed from them.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    sources: tuple[str, ...]
    recipe: Recipe = "unchanged"


@dataclass(frozen=True)
class Layout:
    """All tensors of the export, in order.

    Attributes:
        precision: "bf16" or "fp32", of the backbone.
        outputs: 1 for pairs, K for classes.
        scale: factor of the adapters' products, alpha / rank.
    """

    targets: tuple[Target, ...]
    precision: str
    outputs: int
    scale: float

    @property
    def sources(self) -> list[str]:
        """The scorer's parameters in the order in which ``write_export`` needs them.

        A name appears twice only where a head has a bias (``training.heads``).
        """
        return [name for target in self.targets for name in target.sources]

    @property
    def kinds(self) -> Kinds:
        """Dtype and shape of every tensor by name, in order."""
        return {target.name: (target.dtype, target.shape) for target in self.targets}


def check_exportable(config: PreTrainedConfig, trainable: str, per_row: int) -> None:
    """Refuses, before anything is spent, a model that the stock class cannot represent.

    Args:
        config: of the backbone.
        trainable: full, lora or last_layer.
        per_row: texts of a row, 2 for pairs.

    Raises:
        InputError: there is no stock class, or a last layer for classes whose bias it cannot hold.
    """
    stock = stock_of(config)
    if trainable == "last_layer" and per_row == 1 and stock.final_bias is None:
        raise InputError(
            f"execution.export_models: a last layer for classes on {config.model_type} cannot be "
            f"exported: {stock.name} cannot hold its bias, since neither its head nor its "
            "final norm has one; expected trainable full or lora, or a model whose final norm has "
            "one, such as gpt2 or gpt_neox",
            ("execution", "export_models"),
        )


def export_layout(
    shapes: Mapping[str, tuple[int, ...]],
    module: PreTrainedModel,
    precision: str,
    lora: Lora | None = None,
) -> Layout:
    """The tensors of the export, and the parameters of the scorer that each is computed from.

    Args:
        shapes: whole shape of every parameter of the scorer by name, ``backbone.…`` and ``head.…``.
        module: the backbone; only its configuration and kinds of layers are read.
        precision: "bf16" or "fp32", in which it was trained. The head is float32 in the file.
        lora: rank and alpha, where ``shapes`` has adapters.

    Raises:
        InputError: there is no stock class, or it cannot hold the head's bias.
    """
    stock, dtype = stock_of(module.config), PRECISIONS[precision]
    biased = "head.bias" in shapes
    if biased:
        check_exportable(module.config, "last_layer", per_row=1)
    transposed = transposed_layers(module)
    targets: list[Target] = []
    for name, shape in shapes.items():
        if "lora_" in name or not name.startswith("backbone."):
            continue
        own = name.removeprefix("backbone.")
        plain = own.replace(".base_layer.", ".")
        exported = f"{stock.backbone}.{plain}"
        adapter = _adapter(name, shapes)
        if biased and own == stock.final_bias:
            sources = (name, "head.weight", "head.bias")
            target = Target(exported, torch.float32, shape, sources, "with the head's bias")
        elif adapter:
            inverted = plain.removesuffix(".weight") in transposed or "embedding" in adapter[0]
            recipe: Recipe = "merged, transposed" if inverted else "merged"
            target = Target(exported, dtype, shape, (name, *adapter), recipe)
        else:
            target = Target(exported, dtype, shape, (name,))
        targets.append(target)
    head = shapes["head.weight"]
    targets.append(Target(stock.head, torch.float32, head, ("head.weight",)))
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
    """Writes weights, config.json, tokenizer and README.md into ``folder``, which is created.

    Args:
        folder: None: nothing is written, but ``tensors`` are consumed, as on every rank.
        tensors: the parameters ``layout.sources``, whole, in that order.
        config: of the backbone; not changed.
        tokenizer: has a pad token.
        shard_bytes: largest size of a weight file.

    Raises:
        ValueError: other parameters than ``layout.sources``, or a bias that cannot be moved.
        OSError: the disk is full, or cannot be written.
    """
    if folder is None:
        for _ in tensors:
            pass
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder, layout.kinds, _targets(layout, iter(tensors)), shard_bytes=shard_bytes)
    stock_config(config, layout, tokenizer, card.classes).save_pretrained(folder)
    without_code(tokenizer).save_pretrained(folder)
    write_card(
        folder / "README.md",
        card,
        layout.precision,
        loader=_loader(folder, tokenizer),
        in_pieces=loaded_joins_exactly(tokenizer),
    )


def without_code(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokenizer; its configuration names no Python code."""
    named = [name for name in _CODE if name in tokenizer.init_kwargs]
    if named:
        tokenizer = deepcopy(tokenizer)
        for name in named:
            del tokenizer.init_kwargs[name]
    return tokenizer


def without_code_of_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """The configuration, without Python code, a folder of this machine, or our attention."""
    plain: Any = deepcopy(config)
    plain._attn_implementation = None
    plain._name_or_path = ""
    for code in _CODE:
        if hasattr(plain, code):
            delattr(plain, code)
    plain.use_cache = True
    return plain  # type: ignore[no-any-return]


def ending_in_pad(tokens: Tokens, pad_token_id: int) -> int:
    """Number of texts that the stock classes misread, because their last token is the pad token."""
    ends = tokens.starts[:, None] + tokens.segments.cumsum(axis=1)
    prompt_end, ends = ends[:, :1], ends[:, 1:]
    ends = np.where(tokens.segments[:, 1:] > 0, ends, prompt_end)  # an answer may be empty
    return int((tokens.ids[ends - 1] == pad_token_id).sum())


def stock_config(
    config: PreTrainedConfig,
    layout: Layout,
    tokenizer: PreTrainedTokenizerFast,
    classes: Sequence[str] = (),
) -> PreTrainedConfig:
    """The configuration of the stock class: the backbone's, without this project's settings.

    Args:
        classes: names of the K classes in order; empty for pairs, and for classes without names.
    """
    stock: Any = without_code_of_config(config)
    stock.architectures = [stock_of(config).name]
    stock.dtype = PRECISIONS[layout.precision]
    stock.pad_token_id = tokenizer.pad_token_id
    pairs = layout.outputs == 1
    names = ["reward"] if pairs else list(classes) or [f"LABEL_{n}" for n in range(layout.outputs)]
    stock.id2label = dict(enumerate(names))
    stock.label2id = {name: label for label, name in enumerate(names)}
    stock.problem_type = None if pairs else "single_label_classification"
    return stock  # type: ignore[no-any-return]


def _adapter(name: str, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    """Names of the adapter's A and B for a weight; () where it has no adapter."""
    if not name.endswith("base_layer.weight"):
        return ()
    module = name.removesuffix("base_layer.weight")
    for pair in _ADAPTERS:
        names = tuple(f"{module}{factor}" for factor in pair)
        if names[0] in shapes:
            return names
    raise ValueError(f"export: {name} has an adapter of an unsupported kind")


def _targets(
    layout: Layout, parameters: Iterator[tuple[str, Tensor]]
) -> Iterator[tuple[str, Tensor]]:
    """The tensors of the export, computed from the scorer's parameters as these come."""
    for target in layout.targets:
        parts = []
        for expected in target.sources:
            name, tensor = next(parameters, ("nothing", torch.empty(0)))
            if name != expected:
                raise ValueError(f"export: parameter {name}, expected {expected}")
            parts.append(tensor)
            del tensor  # ``parts`` holds the only reference
        yield target.name, _compute(target, parts, layout.scale).to(target.dtype)
    for name, _ in parameters:
        raise ValueError(f"export: parameter {name}, expected no more parameters")


@torch.no_grad()
def _compute(target: Target, parts: list[Tensor], scale: float) -> Tensor:
    """One tensor of the export; in float32 unless it is unchanged."""
    if target.recipe == "unchanged":
        return parts[0]
    if target.recipe == "with the head's bias":
        return with_bias(*parts)
    weight, down, up = (part.float() for part in parts)
    if target.recipe == "merged, transposed":
        return torch.addmm(weight, down.T, up.T, alpha=scale)
    return torch.addmm(weight, up, down, alpha=scale)


def with_bias(norm_bias: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The final norm's bias with which a head without bias predicts what it did with ``bias``.

    It is β + W⁺b, the smallest change with W(β + W⁺b) = Wβ + b. A constant added to the logits of
    all classes changes no probability, so it is subtracted first: then a head whose rows add up to
    0, as after training from 0, has its bias in the span of its weights.

    Args:
        norm_bias: (H,).
        weight: (K, H) of the head.
        bias: (K,) of the head.

    Returns:
        (H,) float32; probabilities are kept, logits up to a constant that all classes share.

    Raises:
        ValueError: the bias is not in the span, e.g. two classes with equal weights.
    """
    centred = weight.double() - weight.double().mean(dim=0)
    centred_bias = bias.double() - bias.double().mean()
    change = torch.linalg.pinv(centred) @ centred_bias
    residual = float((centred @ change - centred_bias).abs().max())
    if residual > 1e-6 * max(1.0, float(centred_bias.abs().max())):
        raise ValueError(
            f"export: {residual:g} of the head's bias is outside the span of its weights, and "
            "cannot be moved into the final norm"
        )
    new_bias: Tensor = (norm_bias.double() + change).float()
    return new_bias


def _loader(folder: Path, tokenizer: PreTrainedTokenizerFast) -> str:
    """The class of transformers that reads the tokenizer back unchanged.

    ``AutoTokenizer`` takes every tokenizer beside a qwen2 model for Qwen's own, which it rebuilds
    with another normalisation.
    """
    reloaded = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    same = _ids(reloaded) == _ids(tokenizer)
    return "AutoTokenizer" if same else "PreTrainedTokenizerFast"


def _ids(tokenizer: Any) -> list[int]:
    ids: list[int] = tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
    return ids
