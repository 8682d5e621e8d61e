"""Rows that are decoded together, token by token, with a cache for each model.

Every distinct prompt is computed once and its cache copied to its samples. Rows that ended leave
the tensors, so that the last long answers are not slowed down by the others.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerFast

from w2s_ray.models.causal import CausalModel
from w2s_ray.models.key_value_cache import growing_cache, take_rows
from w2s_ray.objectives.contrast import (
    ActsOn,
    contrastive_scores,
    draw,
    proxy_scores,
    repetition_penalty,
    tempered,
)

Mode = Literal["plain", "contrastive", "proxy"]
EndedBy = Literal["end", "stop", "length"]

ROLES: Mapping[Mode, tuple[str, ...]] = {
    "plain": ("model",),
    "contrastive": ("model", "pre"),
    "proxy": ("model", "post", "pre"),
}
"""The models of each mode: "model" is the one that is sampled, for a proxy the strong one."""

COMBINED = "combined"
"""Beside the roles of a proxy: the distribution that its three models make together."""


@dataclass(frozen=True)
class Decoding:
    """How tokens are drawn; see ``objectives.contrast`` for the scores.

    Attributes:
        alpha: of contrastive scores, in [0, 1]; the other modes do not read it.
        head: share of the largest probability that a token of the head has; contrastive only.
        temperature: 0 takes the highest score.
        top_p: share of the probability in the nucleus, after the temperature.
        repetition_penalty: 1: none.
        penalty_on: the level of the scores that it acts on, and with it whether the prompt's
            tokens are penalised.
        max_new_tokens: of one answer; one that has not ended by then is cut off.
        stop: strings that end an answer and are cut from its text.
    """

    mode: Mode
    alpha: float = 0.4
    head: float = 0.1
    temperature: float = 0.8
    top_p: float = 0.95
    repetition_penalty: float = 1.0
    penalty_on: ActsOn = "log_probs"
    max_new_tokens: int = 256
    stop: tuple[str, ...] = ()


class Answer:
    """The tokens of one row so far."""

    __slots__ = ("end_token", "ended_by", "log_probs", "tokens")

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.ended_by: EndedBy = "length"
        self.end_token: int | None = None
        self.log_probs: dict[str, float] = {}


class Batch:
    """Rows that are decoded together; those that ended leave the tensors, not ``answers``."""

    def __init__(
        self,
        models: Mapping[str, CausalModel],
        prompts: Sequence[Sequence[int]],
        seeds: NDArray[np.uint64],
        decoding: Decoding,
    ) -> None:
        self.models, self.decoding = models, decoding
        self.answers = [Answer() for _ in prompts]
        self.done = 0
        self._logits: dict[str, Tensor] = {}
        self._rows = list(range(len(prompts)))  # of ``answers``, by row of the tensors
        self._drawn = 0
        self._device = models["model"].module.device
        self._width = min(int(m.module.config.vocab_size) for m in models.values())
        self._ends = frozenset(models["model"].end_ids)
        self._uniform = torch.from_numpy(_uniform(seeds, decoding.max_new_tokens)).to(self._device)
        self._sums = {
            role: torch.zeros(len(prompts), dtype=torch.float64, device=self._device)
            for role in (*models, *([COMBINED] if decoding.mode == "proxy" else []))
        }
        self._prefill(prompts)

    @property
    def ended(self) -> bool:
        """Whether every row has."""
        return self.done == len(self.answers)

    @torch.inference_mode()
    def step(self) -> None:
        """Draws a token for every row, and computes the logits of the next."""
        decoding = self.decoding
        logits = {role: values[:, : self._width] for role, values in self._logits.items()}
        scores = combined_scores(logits, decoding)
        if decoding.mode == "proxy":
            logits[COMBINED] = scores
        if self._seen is not None:
            on, penalty = decoding.penalty_on, decoding.repetition_penalty
            alpha = decoding.alpha if decoding.mode == "contrastive" else 1.0
            scores = repetition_penalty(scores, self._seen, penalty, acts_on=on, alpha=alpha)
        scores = tempered(scores, decoding.temperature)
        chosen = draw(scores, self._uniform[:, self._drawn], decoding.top_p)
        self._drawn += 1
        for role, values in logits.items():
            log_prob = values.gather(1, chosen[:, None])[:, 0] - values.logsumexp(-1)
            self._sums[role] += log_prob
        if self._seen is not None:
            self._seen.scatter_(1, chosen[:, None], True)
        kept = self._record(chosen.tolist())
        if self.ended:
            self._logits = {}
            return
        if len(kept) < len(self._rows):
            chosen = self._keep(kept, chosen)
        self._forward(chosen[:, None])

    @torch.inference_mode()
    def _prefill(self, prompts: Sequence[Sequence[int]]) -> None:
        """Computes every distinct prompt once, padded on the left, and copies it to its rows."""
        distinct: list[Sequence[int]] = list(dict.fromkeys(map(tuple, prompts)))
        index = {tuple(prompt): i for i, prompt in enumerate(distinct)}
        longest = max(map(len, distinct))
        ids = torch.zeros(len(distinct), longest, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for i, prompt in enumerate(distinct):
            ids[i, longest - len(prompt) :] = torch.tensor(prompt)
            mask[i, longest - len(prompt) :] = 1
        ids, self._mask = ids.to(self._device), mask.to(self._device)
        self._caches = {
            role: growing_cache(model.module.config) for role, model in self.models.items()
        }
        positions = (self._mask.cumsum(1) - 1).clamp_min(0)
        self._logits = {
            role: next_logits(model, ids, self._mask, positions, self._caches[role])
            for role, model in self.models.items()
        }
        rows = torch.tensor([index[tuple(prompt)] for prompt in prompts], device=self._device)
        if len(distinct) < len(prompts):
            for cache in self._caches.values():
                take_rows(cache, rows)
        self._logits = {role: values[rows] for role, values in self._logits.items()}
        self._mask = self._mask[rows]
        self._seen: Tensor | None = None
        if self.decoding.repetition_penalty != 1:
            shape = (len(prompts), self._width)
            self._seen = torch.zeros(shape, dtype=torch.bool, device=self._device)
            if self.decoding.penalty_on == "released":
                for row, prompt in enumerate(prompts):
                    self._seen[row, [token for token in prompt if token < self._width]] = True

    def _record(self, chosen: Sequence[int]) -> list[int]:
        """Adds a token to every row; returns the rows of the tensors that go on."""
        kept: list[int] = []
        sums: dict[str, list[float]] = {}
        tokenizer, stop = self.models["model"].tokenizer, self.decoding.stop
        for position, (row, token) in enumerate(zip(self._rows, chosen, strict=True)):
            answer = self.answers[row]
            if token in self._ends:
                answer.ended_by, answer.end_token = "end", token
            else:
                answer.tokens.append(token)
                if stop and _has_stop(text_of(tokenizer, answer.tokens), stop):
                    answer.ended_by = "stop"
                elif self._drawn < self.decoding.max_new_tokens:
                    kept.append(position)
                    continue
            sums = sums or {role: values.tolist() for role, values in self._sums.items()}
            answer.log_probs = {role: values[position] for role, values in sums.items()}
            self.done += 1
        return kept

    def _keep(self, kept: Sequence[int], chosen: Tensor) -> Tensor:
        """Drops the other rows from all tensors."""
        order = _filled(kept)
        rows = torch.tensor(order, device=self._device)
        self._rows = [self._rows[position] for position in order]
        self._mask, self._uniform = self._mask[rows], self._uniform[rows]
        self._sums = {role: values[rows] for role, values in self._sums.items()}
        if self._seen is not None:
            self._seen = self._seen[rows]
        for cache in self._caches.values():
            take_rows(cache, rows)
        return chosen[rows]

    def _forward(self, ids: Tensor) -> None:
        """Logits after one more token of every row."""
        self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=1)
        positions = self._mask.sum(1, keepdim=True) - 1
        self._logits = {
            role: next_logits(model, ids, self._mask, positions, self._caches[role])
            for role, model in self.models.items()
        }


def _filled(kept: Sequence[int]) -> list[int]:
    """The rows that are kept, the last ones in the places of those that are not: few move."""
    order = list(range(len(kept)))
    free = sorted(set(order).difference(kept))
    for place, row in zip(free, (row for row in kept if row >= len(kept)), strict=True):
        order[place] = row
    return order


def combined_scores(logits: Mapping[str, Tensor], decoding: Decoding) -> Tensor:
    """(B, V) float32 scores of the mode from the (B, V) logits of its roles."""
    if decoding.mode == "contrastive":
        alpha, head = decoding.alpha, decoding.head
        return contrastive_scores(logits["model"], logits["pre"], alpha=alpha, head=head)
    if decoding.mode == "proxy":
        return proxy_scores(logits["model"], logits["post"], logits["pre"])
    return logits["model"].log_softmax(-1)


def next_logits(
    model: CausalModel, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache
) -> Tensor:
    """(B, V) float32 logits after the last of some tokens, which are added to the cache.

    Args:
        ids: (B, t) new tokens, padded on the left.
        mask: (B, T) 1 for the real ones of all tokens so far.
        positions: (B, t) of the new tokens in their texts.
    """
    accepted = inspect.signature(model.module.forward).parameters
    options: dict[str, Any] = {"position_ids": positions, "logits_to_keep": 1}
    options = {name: value for name, value in options.items() if name in accepted}
    output = model.module(
        input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **options
    )
    logits: Tensor = output.logits[:, -1].float()
    return logits


def text_of(tokenizer: PreTrainedTokenizerFast, tokens: Sequence[int]) -> str:
    """The text of an answer, without special tokens."""
    text = tokenizer.decode(list(tokens), skip_special_tokens=True)
    assert isinstance(text, str)
    return text


def first_stop(text: str, stop: Sequence[str]) -> int:
    """Where the first stop string of a text begins; the text's length where it has none.

    A token may hold a stop string in its middle, or only a part of one, so texts are searched.
    """
    found = (text.find(string) for string in stop)
    return min((begin for begin in found if begin >= 0), default=len(text))


def _has_stop(text: str, stop: Sequence[str]) -> bool:
    return first_stop(text, stop) < len(text)


def _uniform(seeds: NDArray[np.uint64], count: int) -> NDArray[np.float64]:
    """(n, count) numbers in [0, 1), each row by its seed alone."""
    rows = [np.random.Generator(np.random.Philox(key=int(s))).random(count) for s in seeds]
    return np.stack(rows)
