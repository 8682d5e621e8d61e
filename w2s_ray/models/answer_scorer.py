"""Log-probabilities of answers under a causal language model, with gradients.

The base model computes packed rows whose answers share their prompt, where its attention passes the
test of ``packed_attention``, else separate rows. The head computes the positions of answers alone,
a chunk at a time. A chunk's logits live as long as the chunk: they are computed again in the
backward pass, so that memory beside the model's states does not grow with the number of tokens. A
vocabulary has 49 to 152 thousand entries, a batch of 16 thousand tokens would need 10 GB in fp32,
several times.
"""

from copy import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from w2s_ray.errors import InputError
from w2s_ray.models import packed_attention
from w2s_ray.models.answer_states import packed_states, separate_states
from w2s_ray.models.given_states import GivenStates
from w2s_ray.models.structure import own_attention

SHARDED_LOGITS_AT_ONCE = 2**28
"""The same where ZeRO 3 fetches the head for every chunk: 1 GiB, so that it is fetched seldom."""
_HOOKS = ("_hooks", "_hooks_with_kwargs", "_hooks_always_called")
LOGITS_AT_ONCE = 2**25
"""Logits of a chunk: 128 MiB in fp32, of which the backward pass holds about four copies."""


class TokenLogProbs(NamedTuple):
    """Log-probabilities of the tokens of answers.

    Attributes:
        values: (a,) float32 log p of each token, answer after answer.
        answer: (a,) index of its answer among the b·m of the batch, ascending.
    """

    values: Tensor
    answer: Tensor


class AnswerScorer(nn.Module):
    """Scores answers by a causal language model of transformers.

    Args:
        causal: the whole model, which stays as it is: its parameters keep their names below
            ``causal``, and tied weights stay tied.
        logits_at_once: logits of a chunk of tokens.
        shares_prompts: whether prompts can be shared, if that is known, and that the head can be
            computed apart; None: both are tested, for which the weights must be whole.

    Raises:
        InputError: the logits do not depend on the last states alone.
    """

    def __init__(
        self,
        causal: PreTrainedModel,
        *,
        logits_at_once: int = LOGITS_AT_ONCE,
        shares_prompts: bool | None = None,
    ) -> None:
        super().__init__()
        self.causal = causal
        self._given = (GivenStates(),)  # in tuples: no parts of this module
        self._head = (_with_base(causal, self._given[0]),)
        self._at_once = max(1, logits_at_once // int(causal.config.vocab_size))
        self._chunks: int | None = None
        base: Any = causal.base_model
        if shares_prompts is None:
            self.shares_prompts = packed_attention.use_if_exact(base)
            _check_head(self)
            return
        self.shares_prompts = shares_prompts
        if shares_prompts:
            base.config._attn_implementation = packed_attention.NAME

    def cut_equally(self, most_tokens: int) -> None:
        """From now on every pass has equally many chunks, however few its answers are.

        Under ZeRO 3 ranks wait for each other whenever one fetches the head, so all of them must
        call it equally often.

        Args:
            most_tokens: of a pass, the same on every rank.
        """
        at_once = max(1, SHARDED_LOGITS_AT_ONCE // int(self.causal.config.vocab_size))
        self._chunks = -(-most_tokens // at_once)

    def forward(self, input_ids: Tensor, segments: Tensor) -> Tensor:
        """(b, m) float32 log p(answer | prompt) of b packed rows, summed over tokens.

        The first token of a text without prompt has none before it and is not counted.

        Args:
            input_ids: (T,) int64, row after row: prompt, answer 1, …, answer m.
            segments: (b, 1 + m) int64, number of tokens of each; T in all.
        """
        tokens = self.token_log_probs(input_ids, segments)
        rows, answers = len(segments), segments.shape[1] - 1
        sums = torch.zeros(rows * answers, device=input_ids.device)
        return sums.index_add(0, tokens.answer, tokens.values).view(rows, answers)

    def token_log_probs(self, input_ids: Tensor, segments: Tensor) -> TokenLogProbs:
        """The log-probability of each token of the answers; arguments as for ``forward``."""
        read = packed_states if self.shares_prompts else separate_states
        base: Any = self.causal.base_model
        scored = read(base, input_ids, segments)
        each = scored.states[scored.before], scored.targets
        if self._chunks is None:
            cut = (torch.split(of, self._at_once) for of in each)
        else:
            cut = (torch.tensor_split(of, self._chunks) for of in each)
        chunks = zip(*cut, strict=True)
        return TokenLogProbs(torch.cat([self._chunk(*c) for c in chunks]), scored.answer)

    def logits(self, states: Tensor) -> Tensor:
        """(n, V) float32 from (n, H) last states, as the model's own class computes them."""
        (given,), (head,) = self._given, self._head
        given.last_hidden_state = states[None]
        ids = torch.zeros(1, len(states), dtype=torch.int64, device=states.device)
        output: Any = head(input_ids=ids, use_cache=False)
        given.last_hidden_state = None
        logits: Tensor = output.logits[0].float()
        return logits

    def _chunk(self, states: Tensor, targets: Tensor) -> Tensor:
        """(n,) log-probabilities; nothing but ``states`` is kept for the backward pass."""
        if not torch.is_grad_enabled():
            return self._log_probs(states, targets)
        values: Tensor = checkpoint(
            self._log_probs, states, targets, use_reentrant=False, preserve_rng_state=False
        )
        return values

    def _log_probs(self, states: Tensor, targets: Tensor) -> Tensor:
        """(n,) log p of ``targets`` from (n, H) states of the tokens before them."""
        return -nn.functional.cross_entropy(self.logits(states), targets, reduction="none")


def _with_base(causal: PreTrainedModel, base: nn.Module) -> PreTrainedModel:
    """The model with another base model; it shares all else, and ``causal`` is not changed.

    Hooks that ``causal`` is given later, such as those of ZeRO 3, are its own: the head has its.
    """
    other = copy(causal)
    hooks = {name: type(of)() for name, of in vars(causal).items() if name.endswith(_HOOKS)}
    vars(other).update(hooks)
    other._modules = {**causal._modules, causal.base_model_prefix: base}
    return other


@torch.no_grad()
def _check_head(scorer: AnswerScorer) -> None:
    """Compares logits of a few tokens with those of the whole model and its own attention."""
    causal = scorer.causal
    base: Any = causal.base_model
    ids = torch.arange(1, 7, device=causal.device)[None] * 7919 % int(causal.config.vocab_size)
    used, base.config._attn_implementation = (
        base.config._attn_implementation,
        own_attention(base.config),
    )
    try:
        states = base(input_ids=ids, use_cache=False).last_hidden_state[0]
        whole = causal(input_ids=ids, use_cache=False).logits[0].float()
    finally:
        base.config._attn_implementation = used
    error = (scorer.logits(states) - whole).abs().max() / whole.abs().max().clamp_min(1e-6)
    if not bool(error < (1e-3 if states.dtype == torch.float32 else 0.1)):
        raise InputError(
            f"architecture {causal.config.model_type}: training on text needs logits that depend "
            "on the last states alone (docs/architectures.md)"
        )
