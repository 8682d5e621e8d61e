"""Measures a model's dimensions on torch's meta device, where tensors have shapes but no values.

Parameters are counted; what autograd keeps of a block is collected in a forward pass.

As a program (``catalog.measured`` runs it) it reads requests from stdin and writes answers, a line
each.
"""

import json
import math
import select
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.pytorch_utils import Conv1D

from w2s_ray.catalog.measured import keep, kept
from w2s_ray.catalog.shapes import UNLIMITED, Saved
from w2s_ray.errors import InputError
from w2s_ray.models.structure import (
    PRECISIONS,
    blocks_of,
    check_supported,
    config_from,
    keep_first_blocks,
    own_attention,
    prepare_config,
    untrained_module,
)
from w2s_ray.models.tokenizer import first_line
from w2s_ray.models.without_values import forward

_TOKENS = 32  # of the shorter of two lines
_PATIENCE_SECONDS = 30.0


def answer(request: str) -> str:
    """The fields of a ``Shape``, or why the model is refused; JSON to JSON."""
    asked = json.loads(request)
    try:
        return json.dumps(dimensions(asked["fields"], asked["layers"]))
    except InputError as error:
        return json.dumps({"refused": str(error).removeprefix("model : ")})
    except Exception as error:  # whatever an unknown architecture makes of a configuration
        reason = f"{type(error).__name__}: {first_line(error)}"
        return json.dumps({"refused": f"its shape cannot be computed: {reason}"})


def prepare(fields: Mapping[str, Any], layers: int | None) -> None:
    """Measures in this process what plans of it will ask for, unless that is done."""
    request = json.dumps({"fields": dict(fields), "layers": layers}, sort_keys=True)
    if not kept(request).is_file():
        keep(request, answer(request))


def dimensions(fields: Mapping[str, Any], layers: int | None) -> dict[str, Any]:
    """The fields of ``catalog.shapes.Shape`` of a model with these configuration fields.

    Args:
        layers: number of blocks that are kept; None: all.

    Raises:
        InputError: no causal language model, one that cannot be built, or too few blocks.
    """
    config = config_from(dict(fields), "")
    check_supported(config, "")
    prepare_config(config)
    if layers is not None:
        if layers > config.num_hidden_layers:
            raise InputError(f"num_layers: {layers}, it has {config.num_hidden_layers}")
        keep_first_blocks(config, layers)
    config._attn_implementation = own_attention(config)
    try:
        with torch.device("meta"):
            module = untrained_module(config)
    except Exception as error:  # transformers raises all kinds
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(f"its config is refused: {reason}") from error
    blocks = blocks_of(module)
    _check_causal(module, config)
    parameters = dict(module.named_parameters())
    heads = int(_field(config, "num_attention_heads") or 1)
    embeddings = sum(
        p.numel() for m in module.modules() if isinstance(m, nn.Embedding) for p in m.parameters()
    )
    total = sum(p.numel() for p in parameters.values())
    linear = [m for m in module.modules() if isinstance(m, nn.Linear | Conv1D)]
    return {
        "layers": len(blocks),
        "hidden_size": _width(module),
        "vocab_size": _rows(module),
        "parameters": total,
        "architecture": config.model_type,
        "max_positions": _positions(config),
        "intermediate_size": _inner(blocks, config),
        "heads": heads,
        "kv_heads": _field(config, "num_key_value_heads") or heads,
        "head_width": _field(config, "head_dim") or config.hidden_size // heads,
        "vectors": sum(p.numel() for p in parameters.values() if p.ndim < 2),
        "measured": {
            "embeddings": embeddings,
            "block": max(sum(p.numel() for p in block.parameters()) for block in blocks),
            "matrices": total - embeddings - _idle(module, config),
            "linear_widths": sum(sum(m.weight.shape) for m in linear),
            "saved": [
                _saved(module, precision, device)
                for device in ("cpu", "gpu")
                for precision in PRECISIONS
            ],
        },
    }


def _check_causal(module: nn.Module, config: PreTrainedConfig) -> None:
    """Refuses encoders; the loaded model is tested as well (``packed_attention.is_causal``)."""
    if any(getattr(part, "is_causal", True) is False for part in module.modules()):
        raise InputError(
            f"architecture {config.model_type} is not supported: its tokens attend to later ones "
            "(docs/architectures.md)"
        )


def _field(config: PreTrainedConfig, name: str) -> int | None:
    """A field of the configuration; None where layers differ in it, or there is none."""
    try:
        value: int | None = getattr(config, name, None)
    except Exception:  # transformers has an error of its own for fields of single layers
        return None
    return value


def _rows(module: Any) -> int:
    """Rows of the token embedding."""
    return int(module.get_input_embeddings().weight.shape[0])


def _width(module: Any) -> int:
    """Width of the last states, which need not be that of the blocks."""
    try:
        with torch.no_grad():
            return int(forward(module, 2).states.shape[-1])
    except Exception:  # not computable without values
        return int(module.config.hidden_size)


def _positions(config: Any) -> int:
    """Longest input in tokens.

    Under longrope it is what the model was first trained on: transformers takes other frequencies
    for a whole batch if one row in it is longer, so a row's states would depend on its neighbours.
    """
    rotary = getattr(config, "rope_parameters", None)
    if isinstance(rotary, dict) and rotary.get("rope_type") == "longrope":
        first = rotary.get("original_max_position_embeddings")
        first = first or getattr(config, "original_max_position_embeddings", None)
        if first:
            return int(first)
    for name in ("max_position_embeddings", "max_seq_len", "n_positions"):
        if isinstance(getattr(config, name, None), int):
            return int(getattr(config, name))
    return UNLIMITED


def _inner(blocks: list[nn.Module], config: Any) -> int:
    """Inner width of a feed-forward layer, of all experts of a token together."""
    widths = [0]
    for part in (part for block in blocks for part in block.modules()):
        if isinstance(part, nn.Linear):
            widths.append(part.in_features)
        elif isinstance(part, Conv1D):
            widths.append(part.weight.shape[0])
        widths += [p.shape[-1] * _used(config) for _, p in _experts(part)]
    return max(widths)


def _experts(part: nn.Module) -> list[tuple[int, Tensor]]:
    """Parameters of a module that are stacks of matrices, one for each of its experts."""
    own = part.parameters(recurse=False)
    return [(parameter.shape[0], parameter) for parameter in own if parameter.ndim == 3]


def _used(config: Any) -> int:
    """Experts that a token is sent to."""
    names = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_top_k")
    return next((int(getattr(config, n)) for n in names if getattr(config, n, None)), 1)


def _idle(module: nn.Module, config: Any) -> int:
    """Parameters of experts that a token is not sent to."""
    stacks = [stack for part in module.modules() for stack in _experts(part)]
    return sum(p.numel() * max(0, count - _used(config)) // count for count, p in stacks)


def _saved(module: Any, precision: str, device: str) -> Saved:
    """What is kept of a block for each token."""
    width = PRECISIONS[precision].itemsize
    module.to(PRECISIONS[precision])
    layers = module.config.num_hidden_layers
    try:
        short = _kept(module, _TOKENS, device)
        if short.heads:
            scores = width * short.heads if device == "cpu" else 0
            fixed = -(-short.size // (_TOKENS * layers))
            return Saved(precision, device, fixed, -(-scores // layers))
        long = _kept(module, 2 * _TOKENS, device)
    except Exception:  # not computable without values
        if precision == "fp32":  # as a choice of experts, whose kernels have shapes in bf16 alone
            half = _saved(module, "bf16", device)
            return Saved(precision, device, 2 * half.fixed, 2 * half.per_row_token)
        # A GPT without dropout, by Korthikanti et al. (2022), section 4.1.
        config = module.config
        heads = 2 * width * config.num_attention_heads
        return Saved(precision, device, 16 * width * config.hidden_size, heads)
    each, of_long = short.size / _TOKENS, long.size / (2 * _TOKENS)
    slope = (of_long - each) / _TOKENS
    fixed = math.ceil((each - slope * _TOKENS) / layers)
    return Saved(precision, device, fixed, math.ceil(slope / layers))


@dataclass
class _Storages:
    """Memory of the tensors that autograd keeps while a block runs, each counted once.

    What several blocks keep (rotary tables) is not a block's own, and is not counted.
    """

    weights: set[int]
    block: nn.Module | None = None
    owners: dict[int, tuple[nn.Module, torch.UntypedStorage]] = field(default_factory=dict)
    shared: set[int] = field(default_factory=set)

    def restart(self) -> None:
        """Forgets a forward pass that failed."""
        self.block = None
        self.owners.clear()
        self.shared.clear()

    def enter(self, block: nn.Module, *_: Any) -> None:
        """Forward hook of a block, before it."""
        self.block = block

    def leave(self, *_: Any) -> None:
        """Forward hook of a block, after it."""
        self.block = None

    def keep(self, tensor: Tensor) -> Tensor:
        """Hook of saved tensors."""
        storage = tensor.untyped_storage()
        if self.block is not None and storage._cdata not in self.weights:
            first, _ = self.owners.setdefault(storage._cdata, (self.block, storage))
            if first is not self.block:
                self.shared.add(storage._cdata)
        return tensor

    @property
    def size(self) -> int:
        """Bytes."""
        own = self.owners.keys() - self.shared
        return sum(self.owners[name][1].nbytes() for name in own)


class _Kept(NamedTuple):
    """Bytes that autograd keeps of all blocks, and heads of ``without_values.forward``."""

    size: int
    heads: int


def _kept(module: Any, tokens: int, device: str) -> _Kept:
    """What is kept of one row."""
    weights = {p.untyped_storage()._cdata for p in module.parameters()}
    storages = _Storages(weights)
    handles = []
    for block in blocks_of(module):
        handles += [
            block.register_forward_pre_hook(storages.enter),
            block.register_forward_hook(storages.leave),
        ]
    try:
        with torch.autograd.graph.saved_tensors_hooks(storages.keep, lambda tensor: tensor):
            heads = forward(module, tokens, device, storages.restart).heads
    finally:
        for handle in handles:
            handle.remove()
    return _Kept(storages.size, heads)


def main() -> None:
    """Answers requests, one a line, until none comes for ``_PATIENCE_SECONDS``."""
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries may print
    while select.select([sys.stdin], [], [], _PATIENCE_SECONDS)[0]:
        request = sys.stdin.readline()
        if not request:
            return
        print(answer(request), file=answers, flush=True)


if __name__ == "__main__":
    main()
