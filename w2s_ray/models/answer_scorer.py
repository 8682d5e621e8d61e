"""Log-probabilities of answers after their prompts, with gradients.

Rows are packed lines in which the answers of a prompt share it. Logits are made only where a token
of an answer is predicted, a few rows of the vocabulary at a time, and again in the backward pass:
for a vocabulary of 152,000 tokens those of a micro-batch of 4,096 tokens would take 2.5 GB.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from w2s_ray.models.language_model import GivenStates, Scored, scored_states
from w2s_ray.objectives.preference import log_ratio_errors, pair_logits

LOGITS_AT_ONCE = 2**25  # numbers: 128 MiB in float32
CAUSAL = "causal."
"""Begins the names of the scorer's parameters; files of weights have those of the causal model."""


class AnswerScorer(nn.Module):
    """Sums, pair logits or errors of log-ratios of answers.

    Args:
        causal: a whole language model of transformers, whose parameters these are.
        shares_prompts: whether its backbone computes packed lines.
        beta: of pair logits and log-ratios.
        logits_at_once: numbers of a piece of logits.
    """

    def __init__(
        self,
        causal: PreTrainedModel,
        *,
        shares_prompts: bool,
        beta: float = 1.0,
        logits_at_once: int = LOGITS_AT_ONCE,
    ) -> None:
        super().__init__()
        self.causal = causal
        self._shares_prompts, self._beta, self._at_once = shares_prompts, beta, logits_at_once
        self._states = GivenStates()
        # The same head on states at hand. It is no submodule, so that no parameter stands twice.
        head = copy.copy(causal)
        head._modules = {**causal._modules, causal.base_model_prefix: self._states}
        self._head = (head,)

    def forward(
        self,
        input_ids: Tensor,
        segments: Tensor,
        reference: Tensor | None = None,
        weak_log_ratios: Tensor | None = None,
    ) -> Tensor:
        """Of b packed rows: (b, m) summed log-probabilities; with ``reference`` more.

        Args:
            input_ids: (T,) int64, row after row: prompt, answer 1, …, answer m.
            segments: (b, 1 + m) int64, number of tokens of each.
            reference: (b, 2) summed log-probabilities of a reference: the pair logits (b, 2); or,
                with ``weak_log_ratios``, (a,) of the answers' tokens: (b, 1) mean squared errors.
            weak_log_ratios: (a,) of the same tokens.
        """
        scored = scored_states(self.causal.base_model, input_ids, segments, self._shares_prompts)
        values = self._log_probs(scored)
        rows, answers = len(segments), segments.shape[1] - 1
        if weak_log_ratios is not None:
            assert reference is not None
            values = log_ratio_errors(values, reference, weak_log_ratios, self._beta)
        sums = values.new_zeros(rows * answers).index_add(0, scored.answer, values)
        sums = sums.view(rows, answers)
        if weak_log_ratios is not None:
            counts = torch.bincount(scored.answer, minlength=rows * answers).view(rows, answers)
            return sums / counts
        return sums if reference is None else pair_logits(sums, reference, self._beta)

    def token_log_probs(self, input_ids: Tensor, segments: Tensor) -> Tensor:
        """(a,) log-probability of each token of the answers, in the order of the line."""
        return self._log_probs(
            scored_states(self.causal.base_model, input_ids, segments, self._shares_prompts)
        )

    def _log_probs(self, scored: Scored) -> Tensor:
        """(a,) float32 log π of the target tokens."""
        vocabulary = int(self.causal.config.get_text_config().vocab_size)
        at_once = max(1, self._at_once // vocabulary)
        states = scored.states[scored.before]
        pieces = zip(
            torch.split(states, at_once), torch.split(scored.targets, at_once), strict=True
        )
        return torch.cat([self._piece(part, targets) for part, targets in pieces])

    def _piece(self, states: Tensor, targets: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return self._of_targets(states, targets)
        values: Tensor = checkpoint(self._of_targets, states, targets, use_reentrant=False)
        return values

    def _of_targets(self, states: Tensor, targets: Tensor) -> Tensor:
        (head,) = self._head
        self._states.last_hidden_state = states[None]
        ids = torch.zeros(1, len(states), dtype=torch.int64, device=states.device)
        output: Any = head(input_ids=ids, use_cache=False)
        logits = output.logits[0].float()
        chosen: Tensor = logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(dim=1)
        return chosen
