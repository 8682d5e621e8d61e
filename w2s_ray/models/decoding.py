"""Answers, token by token, from one model or from several whose logits are combined.

The loop is our own rather than transformers' ``generate``: every row draws from its own random
numbers, whatever batch it is in; the samples of a prompt share its computation; two models advance
together; and rows that have ended leave the batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

from w2s_ray.models.causal import CausalModel
from w2s_ray.objectives.contrast import (
    PenaltyOn,
    contrastive_scores,
    draw,
    penalised,
    proxy_scores,
)

Models = Mapping[str, CausalModel]
CACHE_BYTES = {"cpu": 2**30, "cuda": 2**33}
"""Most bytes of one model's keys and values in a batch."""
MOST_ROWS = {"cpu": 64, "cuda": 512}
_ACTIVE = 0.75  # share of rows below which those that have ended leave the batch


@dataclass(frozen=True)
class Decoding:
    """How tokens are drawn.

    Attributes:
        mode: plain (the one model is ``model``), contrastive (``model`` against ``pre``), or proxy
            (``model`` shifted by ``post`` against ``pre``).
        alpha, head: of contrastive decoding; see ``objectives.contrast``.
        penalty_on: what the repetition penalty acts on.
        stop: texts that end an answer.
    """

    mode: Literal["plain", "contrastive", "proxy"] = "plain"
    alpha: float = 1.0
    head: float = 0.1
    temperature: float = 0.8
    top_p: float = 0.95
    repetition_penalty: float = 1.0
    penalty_on: PenaltyOn = "log_probs"
    max_new_tokens: int = 128
    stop: tuple[str, ...] = ()


class Decoded(NamedTuple):
    """n answers.

    Attributes:
        texts: without the end, and without a text of ``stop``.
        tokens: without the end token.
        finished: whether the answer has ended; else it is cut off.
        log_probs: role → (n,) float32, Σ log π(token) at temperature 1 under each model, the end
            token among them.
    """

    texts: list[str]
    tokens: list[list[int]]
    finished: list[bool]
    log_probs: dict[str, NDArray[np.float32]]


def decode(
    models: Models,
    prompts: Sequence[Sequence[int]],
    seeds: NDArray[np.uint64],
    decoding: Decoding,
    *,
    most_rows: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Decoded:
    """Answers each prompt once.

    Args:
        models: by role; all have one vocabulary.
        prompts: n lists of tokens, none empty. Equal prompts are computed once in each batch.
        seeds: (n,) of each answer's draws.
        most_rows: of a batch; None: as many as the device's memory is meant for.
        progress: takes the number of answers done so far.
    """
    main = models["model"]
    answers = _Answers(main, decoding, len(prompts), tuple(models))
    done = 0
    for rows in _batches(prompts, main, decoding.max_new_tokens, most_rows):
        with torch.inference_mode():
            _Batch(models, [prompts[row] for row in rows], seeds[rows], decoding).run(rows, answers)
        done += len(rows)
        progress(done)
    return answers.decoded()


def _batches(
    prompts: Sequence[Sequence[int]], model: CausalModel, new: int, most_rows: int | None
) -> Iterator[NDArray[np.int64]]:
    """Rows of each batch: of about equal length, equal prompts beside each other."""
    lengths = np.fromiter(map(len, prompts), np.int64, len(prompts))
    order = sorted(range(len(prompts)), key=lambda row: (-lengths[row], tuple(prompts[row]), row))
    kind = model.device.type
    tokens = CACHE_BYTES[kind] // _cache_bytes_per_token(model)
    start = 0
    while start < len(order):
        longest = int(lengths[order[start]]) + new
        count = max(1, min(most_rows or MOST_ROWS[kind], tokens // longest))
        yield np.asarray(order[start : start + count])
        start += count


def _cache_bytes_per_token(model: CausalModel) -> int:
    """Keys and values of one token in all blocks."""
    config: Any = model.module.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * width * model.module.dtype.itemsize)


class _Answers:
    """The answers so far, by row."""

    def __init__(
        self, model: CausalModel, decoding: Decoding, rows: int, roles: Sequence[str]
    ) -> None:
        self._tokenizer, self._ends, self._stop = model.tokenizer, model.end_ids, decoding.stop
        self.tokens: list[list[int]] = [[] for _ in range(rows)]
        self.finished = [False] * rows
        self.log_probs = {role: np.zeros(rows, dtype=np.float64) for role in roles}

    def add(self, row: int, token: int) -> bool:
        """Takes the next token of a row; whether the row has ended."""
        if token in self._ends:
            self.finished[row] = True
            return True
        self.tokens[row].append(token)
        if self._stop and any(text in self._text(row) for text in self._stop):
            self.finished[row] = True
        return self.finished[row]

    def decoded(self) -> Decoded:
        texts = [self._text(row) for row in range(len(self.tokens))]
        for stop in self._stop:
            texts = [text.partition(stop)[0] for text in texts]
        sums = {role: of.astype(np.float32) for role, of in self.log_probs.items()}
        return Decoded(texts, self.tokens, self.finished, sums)

    def _text(self, row: int) -> str:
        text = self._tokenizer.decode(self.tokens[row], skip_special_tokens=True)
        assert isinstance(text, str)
        return text


@dataclass
class _Batch:
    """The rows that advance together.

    Attributes:
        prompts: b lists of tokens.
        seeds: (b,).
    """

    models: Models
    prompts: list[Sequence[int]]
    seeds: NDArray[np.uint64]
    decoding: Decoding
    caches: dict[str, DynamicCache] = field(default_factory=dict)

    def run(self, rows: NDArray[np.int64], answers: _Answers) -> None:
        """Draws until every row has ended or is cut off."""
        device = self.models["model"].device
        active = rows.tolist()
        logits, mask = self._prefill()
        uniforms = self._uniforms().to(device)
        seen = self._seen(logits["model"].shape[-1]).to(device)
        lengths = torch.tensor([len(prompt) for prompt in self.prompts], device=device)
        for position in range(self.decoding.max_new_tokens):
            tokens = self._drawn(logits, seen, uniforms[:, position])
            self._add_log_probs(answers, active, logits, tokens)
            ended = [row < 0 or answers.add(row, token)
                     for row, token in zip(active, tokens.tolist(), strict=True)]  # fmt: skip
            active = [-1 if end else row for row, end in zip(active, ended, strict=True)]
            alive = [number for number, row in enumerate(active) if row >= 0]
            if not alive or position + 1 == self.decoding.max_new_tokens:
                return
            seen.scatter_(1, tokens[:, None], True)
            if len(alive) <= _ACTIVE * len(active):
                kept = torch.tensor(alive, device=device)
                active = [active[number] for number in alive]
                tokens, seen, uniforms = tokens[kept], seen[kept], uniforms[kept]
                mask, lengths = mask[kept], lengths[kept]
                for cache in self.caches.values():
                    cache.batch_select_indices(kept)
            mask = torch.nn.functional.pad(mask, (0, 1), value=1)
            logits = self._step(tokens, mask, lengths + position)

    def _prefill(self) -> tuple[dict[str, Tensor], Tensor]:
        """(b, V) logits after the prompts by role, and the (b, T) mask of their tokens.

        Prompts are padded on the left; those that are equal are computed once.
        """
        distinct = {tuple(prompt): number for number, prompt in
                    enumerate(dict.fromkeys(map(tuple, self.prompts)))}  # fmt: skip
        longest = max(map(len, distinct))
        ids = torch.zeros(len(distinct), longest, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for number, prompt in enumerate(distinct):
            ids[number, longest - len(prompt) :] = torch.tensor(prompt)
            mask[number, longest - len(prompt) :] = 1
        positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
        of_row = torch.tensor([distinct[tuple(prompt)] for prompt in self.prompts])
        logits = {}
        for role, model in self.models.items():
            self.caches[role] = DynamicCache(config=model.module.config)
            last = self._forward(role, ids, mask, positions)
            if len(distinct) < len(self.prompts):
                self.caches[role].batch_select_indices(of_row.to(last.device))
                last = last[of_row.to(last.device)]
            logits[role] = last
        return logits, mask[of_row].to(self.models["model"].device)

    def _step(self, tokens: Tensor, mask: Tensor, positions: Tensor) -> dict[str, Tensor]:
        """(b, V) logits after one more token of each row, by role."""
        return {
            role: self._forward(role, tokens[:, None], mask, positions[:, None])
            for role in self.models
        }

    def _forward(self, role: str, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        module = self.models[role].module
        output: Any = module(
            input_ids=ids.to(module.device),
            attention_mask=mask.to(module.device),
            position_ids=positions.to(module.device),
            past_key_values=self.caches[role],
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def _drawn(self, logits: Mapping[str, Tensor], seen: Tensor, uniforms: Tensor) -> Tensor:
        """(b,) the next tokens."""
        how = self.decoding
        alpha = how.alpha if how.mode == "contrastive" else 1.0
        if how.mode == "contrastive":
            scores = contrastive_scores(logits["model"], logits["pre"], alpha=alpha, head=how.head)
        elif how.mode == "proxy":
            scores = proxy_scores(logits["model"], logits["post"], logits["pre"])
        else:
            scores = torch.log_softmax(logits["model"], dim=-1)
        scores = penalised(
            scores, seen, how.repetition_penalty, acts_on=how.penalty_on, alpha=alpha
        )
        return draw(scores, uniforms, temperature=how.temperature, top_p=how.top_p)

    def _uniforms(self) -> Tensor:
        """(b, max_new_tokens) float64, each row from its own seed."""
        count = self.decoding.max_new_tokens
        generators = (np.random.Generator(np.random.Philox(key=int(seed))) for seed in self.seeds)
        return torch.from_numpy(np.stack([generator.random(count) for generator in generators]))

    def _seen(self, width: int) -> Tensor:
        """(b, V) bool: tokens that count as seen before the first is drawn."""
        seen = torch.zeros(len(self.prompts), width, dtype=torch.bool)
        if self.decoding.penalty_on == "released":
            for number, prompt in enumerate(self.prompts):
                seen[number, torch.tensor(list(prompt))] = True
        return seen

    def _add_log_probs(
        self,
        answers: _Answers,
        active: Sequence[int],
        logits: Mapping[str, Tensor],
        tokens: Tensor,
    ) -> None:
        """Adds log π of the drawn tokens to the rows that have not ended."""
        alive = [number for number, row in enumerate(active) if row >= 0]
        rows = [active[number] for number in alive]
        for role, of_role in logits.items():
            drawn = of_role.gather(1, tokens[:, None])[:, 0] - of_role.logsumexp(dim=1)
            answers.log_probs[role][rows] += drawn.double().cpu().numpy()[alive]
