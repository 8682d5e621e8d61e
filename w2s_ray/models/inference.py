"""Forward passes without gradients: frozen features of all texts, and a scorer's logits.

Each text is its own row here, so that the two answers of a pair need not be padded to the longer;
batches hold texts of like length, longest first, and results come back in the order of the table.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from w2s_ray.data.batches import length_batches, pad
from w2s_ray.data.tokens import Tokens
from w2s_ray.models.backbone import Backbone
from w2s_ray.models.scorer import Scorer, readout

TOKEN_BUDGET = {"cpu": 1_024, "cuda": 32_768}  # padded tokens of one forward pass

Done = Callable[[int], None]


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
        token_budget: padded tokens of a forward pass; None: what suits the device.
        progress: takes the real tokens done so far, after every pass.
    """
    return _states(backbone.module, tokens, token_budget, progress)


def scorer_logits(
    scorer: Scorer,
    tokens: Tokens,
    token_budget: int | None = None,
    *,
    progress: Done = lambda done: None,
) -> NDArray[np.float32]:
    """Logits (n, K) of every row; arguments as for ``last_states``."""
    states = _states(scorer.backbone, tokens, token_budget, progress)
    device = scorer.head.weight.device
    with torch.inference_mode():
        logits = scorer.head(torch.from_numpy(states).flatten(0, 1).to(device))
    result: NDArray[np.float32] = logits.cpu().numpy()
    return result


def _states(
    module: nn.Module, tokens: Tokens, token_budget: int | None, progress: Done
) -> NDArray[np.float32]:
    device = next(module.parameters()).device
    texts = replace(
        tokens, row_ids=[""] * tokens.lengths.size, prompt_lengths=np.empty(0, np.int64), per_row=1
    )
    states: NDArray[np.float32] | None = None
    done = 0
    with torch.inference_mode():
        for batch in length_batches(texts, token_budget or TOKEN_BUDGET[device.type]):
            input_ids, lengths = (torch.from_numpy(array) for array in pad(texts, batch))
            found = readout(module, input_ids.to(device), lengths.to(device)).cpu().numpy()
            if states is None:
                states = np.empty((tokens.lengths.size, found.shape[1]), dtype=np.float32)
            states[batch] = found
            done += int(lengths.sum())
            progress(done)
    assert states is not None, "no rows"
    return states.reshape(-1, tokens.per_row, states.shape[1])
