"""Row on feature extraction: what reading out ragged texts costs beside full rows."""

from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.measure import Row, alternate, share, stopwatch
from benchmarks.options import Options
from benchmarks.pairs import MODEL, PAIRS, count, tokenised
from w2s_ray.models.backbone import load_backbone
from w2s_ray.models.inference import last_states
from w2s_ray.spec.schema import ModelSpec

FULL_ROWS = (2, 512)  # no padding, long enough for full speed


def features(options: Options) -> Iterator[Row]:
    """Tokens/s of ``last_states`` on real pairs as a share of the bare model's on full rows."""
    torch.set_num_threads(options.threads)
    tokens = tokenised(PAIRS["real"]().slice(0, options.size(192, 16)))
    backbone = load_backbone(ModelSpec.model_validate(MODEL), "bf16", "cpu")
    lengths = count(tokens, np.arange(len(tokens.row_ids)))
    passes = -(-lengths.texts // (FULL_ROWS[0] * FULL_ROWS[1]))
    full = torch.randint(0, backbone.module.config.vocab_size, FULL_ROWS)

    def ours() -> float:
        with stopwatch() as watch:
            last_states(backbone, tokens)
        return lengths.texts / watch.seconds

    def bare() -> float:
        with stopwatch() as watch, torch.inference_mode():
            for _ in range(passes):
                backbone.module(input_ids=full, use_cache=False)
        return passes * full.numel() / watch.seconds

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
            "texts as given, the prompt in both; counting each prompt once, multiply by "
            f"{once:.2f}; SmolLM2-135M, {len(tokens.row_ids)} pairs"
        ),
        rounds=measured,
    )
