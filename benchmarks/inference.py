"""Row on feature extraction: the speed on ragged texts relative to full rows."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import Row, alternate, share, stopwatch
from benchmarks.options import Options
from benchmarks.pairs import MODEL, PAIRS, count, tokenised
from w2s_ray.data.tokens import Tokens
from w2s_ray.models.backbone import Backbone, load_backbone
from w2s_ray.models.inference import last_states
from w2s_ray.spec.schema import ModelSpec

FULL_ROWS = (2, 512)  # no padding, and long enough for full speed


def features(options: Options) -> Iterator[Row]:
    """Tokens/s of ``last_states`` on real pairs as a share of the bare model's on full rows."""
    torch.set_num_threads(options.threads)
    tokens = tokenised(PAIRS["real"]().slice(0, options.size(192, 16)))
    backbone = load_backbone(ModelSpec.model_validate(MODEL), "bf16", "cpu")
    lengths = count(tokens, np.arange(len(tokens.row_ids)))
    forwards = -(-lengths.texts // (FULL_ROWS[0] * FULL_ROWS[1]))
    full = torch.randint(0, backbone.module.config.vocab_size, FULL_ROWS)

    ours = partial(_feature_rate, backbone, tokens, lengths.texts)
    bare = partial(_forward_rate, backbone, full, forwards)
    if not options.quick:
        ours()
    measured = alternate(options.rounds, ours, bare)
    best = {side: max(entry[side] for entry in measured) for side in ("ours", "other")}
    once = lengths.distinct / lengths.texts
    yield Row(
        name="features",
        measure="feature extraction, tokens/s",
        against=f"bare forward on full rows of {FULL_ROWS[0]} × {FULL_ROWS[1]}, same token count",
        values=share(measured),
        target=0.9,
        note=(
            f"{best['ours']:,.0f} against {best['other']:,.0f} tokens/s at best; tokens of the "
            "texts as given, the prompt in both; to count each prompt once, multiply by "
            f"{once:.2f}; SmolLM2-135M, {len(tokens.row_ids)} pairs"
        ),
        rounds=measured,
    )


def _feature_rate(backbone: Backbone, tokens: Tokens, count: int) -> float:
    """Tokens/s of ``last_states``, counting ``count`` tokens."""
    with stopwatch() as watch:
        last_states(backbone, tokens)
    return count / watch.seconds


def _forward_rate(backbone: Backbone, rows: Tensor, times: int) -> float:
    """Tokens/s of the bare model on ``rows``."""
    with stopwatch() as watch, torch.inference_mode():
        for _ in range(times):
            backbone.module(input_ids=rows, use_cache=False)
    return times * rows.numel() / watch.seconds
