"""Forward passes without gradients: frozen features of all texts, and a scorer's logits.

One path for features, labels and test scores. Batches are packed lines, longest rows of the table
(or shard) first, so that memory is highest at the start; results come back in the table's order.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from w2s_ray.capacity.token_budgets import INFERENCE_TOKENS
from w2s_ray.data.batches import length_batches, pack
from w2s_ray.data.tokens import Tokens
from w2s_ray.models.backbone import Backbone
from w2s_ray.models.scorer import Scorer, readout

Done = Callable[[int], None]
Forward = Callable[[Tensor, Tensor], Tensor]


def last_states(
    backbone: Backbone,
    tokens: Tokens,
    token_budget: int | None = None,
    *,
    progress: Done = lambda done: None,
) -> NDArray[np.float32]:
    """Hidden states (n, m, H) of the last real token of every text.

    Args:
        tokens: n rows of m texts.
        token_budget: tokens of a forward pass; None: what suits the device.
        progress: takes the tokens done so far, after every pass.
    """
    module = backbone.module

    def forward(input_ids: Tensor, segments: Tensor) -> Tensor:
        device = next(module.parameters()).device
        states = readout(module, input_ids.to(device), segments.to(device))
        return states.view(len(segments), -1)

    flat = sweep(forward, tokens, token_budget or _budget(module), progress=progress)
    return flat.reshape(len(flat), tokens.per_row, -1)


def scorer_logits(
    scorer: Scorer,
    tokens: Tokens,
    token_budget: int | None = None,
    *,
    progress: Done = lambda done: None,
) -> NDArray[np.float32]:
    """Logits (n, K) of every row; arguments as for ``last_states``."""
    device = scorer.head.weight.device

    def forward(input_ids: Tensor, segments: Tensor) -> Tensor:
        logits: Tensor = scorer(input_ids.to(device), segments.to(device))
        return logits

    return sweep(forward, tokens, token_budget or _budget(scorer), progress=progress)


@torch.no_grad()
def sweep(
    forward: Forward,
    tokens: Tokens,
    token_budget: int,
    *,
    rank: int = 0,
    world: int = 1,
    gather: Callable[[Tensor], Tensor] = lambda values: values,
    progress: Done = lambda done: None,
) -> NDArray[np.float32]:
    """``forward`` (b rows → (b, D)) over all rows: (n, D) float32 in table order, on every rank.

    Batches go round the ranks; every rank makes the same number of forward passes (ZeRO-3 would
    wait for ever otherwise), repeating the last batch where there is none for it.
    """
    batches = length_batches(tokens.row_lengths, token_budget)
    widest = max(map(len, batches))
    results: NDArray[np.float32] | None = None
    done = 0
    for turn in range(0, len(batches), world):
        turns = [batches[min(turn + r, len(batches) - 1)] for r in range(world)]
        input_ids, segments = (torch.from_numpy(a) for a in pack(tokens, turns[rank]))
        found = forward(input_ids, segments).float().cpu()
        if world > 1:  # gathered at one size
            found = gather(torch.nn.functional.pad(found, (0, 0, 0, widest - len(found))))
        if results is None:
            results = np.empty((len(tokens.segments), found.shape[1]), dtype=np.float32)
        for rows, values in zip(turns, found.chunk(world), strict=True):
            results[rows] = values[: len(rows)].numpy()
        done += sum(int(tokens.row_lengths[rows].sum()) for rows in batches[turn : turn + world])
        progress(done)
    assert results is not None, "no rows"
    return results


def _budget(module: torch.nn.Module) -> int:
    return INFERENCE_TOKENS[next(module.parameters()).device.type]
