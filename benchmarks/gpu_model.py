"""What ``gpu_train.py`` trains: a random Qwen2 backbone, and packed lines of random pairs.

Also counts their operations. Needs only torch, transformers and numpy, and those parts of this
project that need no more.
"""

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import Qwen2Config, Qwen2Model

from w2s_ray.models import packed_attention
from w2s_ray.models.compiled import compile_blocks, leave_eager
from w2s_ray.training.engine import Batch

QWEN_7B: dict[str, Any] = {  # Qwen/Qwen2.5-7B, config.json
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152_064,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    "tie_word_embeddings": False,
}
SMALL: dict[str, Any] = {  # for checks: heads of 64, so that fp32 fits FlexAttention's tiles
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "tie_word_embeddings": False,
}
TINY: dict[str, Any] = SMALL | {"hidden_size": 64, "intermediate_size": 160, "vocab_size": 500}
PATTERN = re.compile(r"(eager|compiled)(\.\d+)?(?:-checkpointed(?:/(\d+))?)?:(\d+)x(\d+)")


@dataclass(frozen=True)
class Variant:
    """A configuration of the training step.

    Attributes:
        name: such as ``eager:4096x4``, ``eager-checkpointed:8192x2``,
            ``eager-checkpointed/2:8192x2`` (every second block checkpointed) or
            ``compiled.9:12288x1`` (``keep`` is 0.9).
        keep: of ``models/compiled.compile_blocks``; None for eager blocks.
        checkpoint_every: every n-th block is recomputed in the backward pass; 0 for none.
        tokens: per micro-batch.
        micro_batches: per optimizer step.
    """

    name: str
    keep: float | None
    checkpoint_every: int
    tokens: int
    micro_batches: int


def variant(name: str) -> Variant:
    """Parse the name of a variant.

    Raises:
        ValueError: the name does not have the form of one.
    """
    match = PATTERN.fullmatch(name)
    if match is None:
        raise ValueError(f"variant {name!r}, expected e.g. compiled-checkpointed:8192x2")
    mode, keep, every, tokens, micro_batches = match.groups()
    checkpoint_every = int(every or 1) if "-checkpointed" in name else 0
    kept = float(keep or 1) if mode == "compiled" else None
    return Variant(name, kept, checkpoint_every, int(tokens), int(micro_batches))


def build(config: dict[str, Any], dtype: torch.dtype, device: str) -> Qwen2Model:
    """A random backbone, initialised directly on ``device`` in ``dtype`` without another copy."""
    before = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = Qwen2Model(Qwen2Config(**config, attn_implementation="sdpa", use_cache=False))
    finally:
        torch.set_default_dtype(before)
    assert {p.dtype for p in model.parameters()} == {dtype}
    if not packed_attention.use_if_exact(model):
        raise RuntimeError("packed attention is off: see the warning above")
    return model.train()


def set_up(model: Qwen2Model, keep: float | None, checkpoint_every: int) -> None:
    """Set all blocks to the mode of a ``Variant`` with these fields, whatever it was before."""
    leave_eager(model)
    word = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    getattr(model, f"{word}_checkpointing_disable")()  # "gradient": transformers before 5.23
    if checkpoint_every:
        enable = getattr(model, f"{word}_checkpointing_enable")
        enable({"use_reentrant": False}, every_n_layers=checkpoint_every)
    if keep is not None:
        compile_blocks(model, keep)


def multiplied(model: nn.Module) -> int:
    """N, the weights that every token is multiplied with; not the embedding, a lookup."""
    return sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))


class Line(NamedTuple):
    """A packed line of B pairs.

    Attributes:
        ids: (T,) token ids.
        segments: (B, 3) lengths of prompt and answers.
        soft_labels: (B, 2) float32.
    """

    ids: NDArray[Any]
    segments: NDArray[np.int64]
    soft_labels: NDArray[np.float32]


def line(tokens: int, limit: int, vocabulary: int, seed: int) -> Line:
    """A packed line of exactly ``tokens`` tokens.

    Pairs are long: prompt and answer near ``limit``, the prompt about a third of the row.
    """
    random = np.random.default_rng(seed)
    count = max(1, round(tokens / (1.4 * limit)))
    sizes = np.full(count, tokens // count)
    sizes[: tokens % count] += 1
    shift = random.integers(-(sizes[0] // 8), sizes[0] // 8 + 1, size=count // 2)
    sizes[: 2 * len(shift) : 2] += shift  # different lengths, same total
    sizes[1 : 2 * len(shift) : 2] -= shift
    prompts = (sizes * random.uniform(0.25, 0.4, size=count)).astype(np.int64)
    prompts = np.minimum(prompts, np.maximum(2 * limit - sizes - 1, 0))
    first = (sizes - prompts) // 2
    segments = np.stack([prompts, first, sizes - prompts - first], axis=1)
    assert segments.sum() == tokens and segments.min() >= 0
    second = random.uniform(0.05, 0.95, size=count).astype(np.float32)
    labels = np.stack([1 - second, second], axis=1)
    return Line(random.integers(0, vocabulary, size=tokens), segments, labels)


def optimizer_batch(chosen: Variant, limit: int, vocabulary: int, seed: int) -> list[Batch]:
    """The micro-batches of one step; like real ones, their lines differ in length, by blocks."""
    short = packed_attention.BLOCK if chosen.tokens > 4 * packed_attention.BLOCK else 0
    lines = [
        line(chosen.tokens - short * ((seed + n) % 3), limit, vocabulary, 1000 * seed + n)
        for n in range(chosen.micro_batches)
    ]
    pairs = sum(len(one.segments) for one in lines)
    return [
        Batch(
            inputs={
                "input_ids": torch.from_numpy(one.ids),
                "segments": torch.from_numpy(one.segments),
            },
            soft_labels=torch.from_numpy(one.soft_labels),
            weights=torch.full((len(one.segments),), 1.0 / pairs),
            tokens=len(one.ids),
        )
        for one in lines
    ]


def model_flops(batches: list[Batch], model: Qwen2Model) -> float:
    """FLOP of one step: forward, and twice that backward, without recomputation.

    2 per multiplied weight and token; 4 · head width per head and per pair of tokens that see each
    other (q·k and weight·v). The embedding, norms and the head's H products are not counted.
    """
    config = model.config
    width = config.hidden_size  # number of heads × head width
    tokens = sum(batch.tokens for batch in batches)
    seen = 0.0
    for batch in batches:
        prompts, answers = batch.inputs["segments"].double().split([1, 2], dim=1)
        seen += float((prompts * (prompts + 1) / 2).sum())
        seen += float((answers * prompts + answers * (answers + 1) / 2).sum())
    attention = 4.0 * width * config.num_hidden_layers * seen
    return 3.0 * (2.0 * multiplied(model) * tokens + attention)
