"""Row on decoding: contrastive decoding with two models, against transformers' own ``generate``."""

from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, LogitsProcessor, LogitsProcessorList

from benchmarks.measure import Row, alternate, share, stopwatch
from benchmarks.options import Options
from benchmarks.pairs import MODEL
from w2s_ray.models.causal import CausalModel, load_causal
from w2s_ray.models.decoding import Decoding, decode
from w2s_ray.objectives.contrast import contrastive_scores
from w2s_ray.spec.schema import ModelSpec

SAMPLES = 4  # of each prompt
ALPHA, HEAD = 0.4, 0.1
TOPICS = ("the tides", "bread", "a small town by the sea", "bees", "glass", "trains at night")
TASKS = (
    "Write three sentences about {}.",
    "Explain {} to a child who has never heard of it, without using any commas.",
    "List four facts on {}, each on a line of its own that begins with a dash. Be brief, use "
    "lowercase letters only, and end with the words: that is all.",
)


def decoding(options: Options) -> Iterator[Row]:
    """New tokens/s of ``decode`` as a share of those of ``generate``, equally many of both."""
    torch.set_num_threads(options.threads)
    new, prompts = options.size(64, 4), options.size(8, 2)
    model = load_causal(ModelSpec.model_validate(MODEL), "fp32", device="cpu")
    post = CausalModel(model.module, model.tokenizer, (), model.name)  # no row ends before others
    pre = CausalModel(_moved(model.module), model.tokenizer, (), f"{model.name}, moved")
    ids = _prompts(model, prompts)
    how = Decoding("contrastive", alpha=ALPHA, head=HEAD, max_new_tokens=new)
    ours = partial(_our_rate, post, pre, ids, how)
    other = partial(_generate_rate, post, pre, ids, how)
    measured = alternate(options.rounds, ours, other)
    best = {side: max(entry[side] for entry in measured) for side in ("ours", "other")}
    yield Row(
        name="decoding",
        measure="contrastive decoding with two models, new tokens/s",
        against="transformers' generate, the second model in a logits processor with its own cache",
        values=share(measured),
        target=1.0,
        note=(
            f"{best['ours']:,.0f} against {best['other']:,.0f} tokens/s at best; one batch of "
            f"{prompts} prompts × {SAMPLES} samples, {new} new tokens each and no end token, so "
            "that no row leaves the batch early; SmolLM2-135M and a copy of it, fp32"
        ),
        rounds=measured,
    )


def _moved(module: Any) -> Any:
    """A copy of a model whose weights differ a little."""
    copy = deepcopy(module)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter += 0.002 * torch.randn(parameter.shape, generator=generator)
    return copy


def _prompts(model: CausalModel, count: int) -> list[list[int]]:
    """``count`` prompts of several lengths, each ``SAMPLES`` times."""
    texts = [task.format(topic) for topic in TOPICS for task in TASKS][:count]
    encoded: Any = model.tokenizer(texts)
    return [ids for ids in encoded["input_ids"] for _ in range(SAMPLES)]


def _our_rate(post: CausalModel, pre: CausalModel, ids: list[list[int]], how: Decoding) -> float:
    """New tokens/s of ours."""
    seeds = np.arange(len(ids), dtype=np.uint64)
    with stopwatch() as watch:
        found = decode({"model": post, "pre": pre}, ids, seeds, how, batch_rows=len(ids))
    tokens = sum(map(len, found.tokens))
    assert tokens == len(ids) * how.max_new_tokens
    return tokens / watch.seconds


class _Contrast(LogitsProcessor):
    """Scores of both models; the second computes the new tokens with a cache of its own."""

    def __init__(self, pre: Any, mask: Tensor) -> None:
        self._pre, self._mask = pre, mask
        self._cache = DynamicCache(config=pre.config)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, V) contrastive scores from the first model's logits."""
        before = self._cache.get_seq_length()
        added = input_ids.shape[1] - self._mask.shape[1]
        self._mask = torch.nn.functional.pad(self._mask, (0, added), value=1)
        positions = (self._mask.cumsum(1) - 1).clamp_min(0)[:, before:]
        output = self._pre(
            input_ids=input_ids[:, before:],
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return contrastive_scores(scores, output.logits[:, -1], alpha=ALPHA, head=HEAD)


def _generate_rate(
    post: CausalModel, pre: CausalModel, ids: list[list[int]], how: Decoding
) -> float:
    """New tokens/s of transformers on the same batch."""
    longest = max(map(len, ids))
    padded = torch.tensor([[0] * (longest - len(row)) + row for row in ids])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids])
    config = GenerationConfig(
        do_sample=True,
        temperature=how.temperature,
        top_p=how.top_p,
        top_k=0,
        max_new_tokens=how.max_new_tokens,
        pad_token_id=0,
    )
    module: Any = post.module
    module.generation_config.eos_token_id = None
    with stopwatch() as watch:
        found = module.generate(
            padded,
            attention_mask=mask,
            generation_config=config,
            logits_processor=LogitsProcessorList([_Contrast(pre.module, mask)]),
        )
    assert found.shape == (len(ids), longest + how.max_new_tokens)
    return len(ids) * how.max_new_tokens / watch.seconds
