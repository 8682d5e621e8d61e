"""Forward passes without gradients: frozen features of all texts, and a scorer's logits.

Features, labels and test scores are computed by the same code. Batches are packed lines, longest
rows of the table (or shard) first, so that memory peaks at the start; results are in the table's
order.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from w2s_ray.capacity.token_budgets import INFERENCE_TOKENS
from w2s_ray.data.batches import length_batches, pack
from w2s_ray.data.tokens import Tokens
from w2s_ray.models.backbone import Backbone
from w2s_ray.models.finite_weights import check_scores
from w2s_ray.models.scorer import Scorer, readout

Progress = Callable[[int], None]
Forward = Callable[[Tensor, Tensor], Tensor]


def last_states(
    backbone: Backbone,
    tokens: Tokens,
    token_budget: int | None = None,
    *,
    progress: Progress = lambda done: None,
) -> NDArray[np.float32]:
    """Hidden states (n, m, H) of the last real token of every text; equal for equal texts.

    Args:
        tokens: n rows of m texts.
        token_budget: tokens of a forward pass; None: that of the device.
        progress: called after every forward pass, with the number of tokens done so far.

    Raises:
        FloatingPointError: a state is not finite; names the row.
    """
    budget = token_budget or token_budget_of(backbone.module)
    forward = partial(_row_states, backbone.module)
    flat = sweep(forward, tokens, budget, progress=progress)
    states = flat.reshape(len(flat), tokens.per_row, -1)
    states[tokens.identical] = states[tokens.identical, :1]  # whatever rounding makes of them
    check_scores(states, "the model's features", tokens.row_ids, backbone.module)
    return states


def scorer_logits(
    scorer: Scorer,
    tokens: Tokens,
    token_budget: int | None = None,
    *,
    progress: Progress = lambda done: None,
) -> NDArray[np.float32]:
    """Logits (n, K) of every row, 0 for equal texts; arguments and errors of ``last_states``."""
    budget = token_budget or token_budget_of(scorer)
    logits = sweep(partial(_row_logits, scorer), tokens, budget, progress=progress)
    logits[tokens.identical] = 0.0  # a tie, whatever rounding makes of it
    check_scores(logits, "the model's logits", tokens.row_ids, scorer)
    return logits


def _row_states(module: torch.nn.Module, input_ids: Tensor, segments: Tensor) -> Tensor:
    """(b, m·H) last states of the texts of b packed rows."""
    device = next(module.parameters()).device
    states = readout(module, input_ids.to(device), segments.to(device))
    return states.view(len(segments), -1)


def _row_logits(scorer: Scorer, input_ids: Tensor, segments: Tensor) -> Tensor:
    """(b, K) logits of b packed rows."""
    device = scorer.head.weight.device
    logits: Tensor = scorer(input_ids.to(device), segments.to(device))
    return logits


@torch.no_grad()
def sweep(
    forward: Forward,
    tokens: Tokens,
    token_budget: int,
    *,
    rank: int = 0,
    world: int = 1,
    gather: Callable[[Tensor], Tensor] = lambda values: values,
    progress: Progress = lambda done: None,
) -> NDArray[np.float32]:
    """Applies ``forward`` to all rows, on one rank or several.

    Batches are dealt to the ranks in turn. Every rank makes the same number of forward passes,
    repeating the last batch where it has none, because ZeRO-3 would otherwise wait forever.

    Args:
        forward: b packed rows → (b, D).
        gather: (b, D) of this rank → (world·b, D) of all ranks, in their order.

    Returns:
        (n, D) in table order, on every rank.
    """
    batches = length_batches(tokens.row_lengths, token_budget)
    largest = max(map(len, batches))
    results: NDArray[np.float32] | None = None
    done = 0
    for first in range(0, len(batches), world):
        dealt = [batches[min(first + r, len(batches) - 1)] for r in range(world)]
        input_ids, segments = (torch.from_numpy(a) for a in pack(tokens, dealt[rank]))
        outputs = forward(input_ids, segments).float().cpu()
        if world > 1:  # ranks gather tensors of one size
            outputs = gather(torch.nn.functional.pad(outputs, (0, 0, 0, largest - len(outputs))))
        if results is None:
            results = np.empty((len(tokens.segments), outputs.shape[1]), dtype=np.float32)
        for rows, values in zip(dealt, outputs.chunk(world), strict=True):
            results[rows] = values[: len(rows)].numpy()
        done += sum(int(tokens.row_lengths[rows].sum()) for rows in batches[first : first + world])
        progress(done)
    assert results is not None, "no rows"
    return results


def token_budget_of(module: torch.nn.Module) -> int:
    """Tokens of a forward pass on the device of a module."""
    return INFERENCE_TOKENS[next(module.parameters()).device.type]
