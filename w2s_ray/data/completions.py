"""Prompts and answers as tokens of a language model: ``prompt | answer + end | …`` of each row.

The prompt is a user's message, rendered by the model's chat template up to where its answer
begins, or the text as it is; the answer is tokenised by itself, as it was sampled, and the token
that ends it follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from w2s_ray.data.rendering import template_of
from w2s_ray.data.tokens import Tokens, tokenise
from w2s_ray.spec.training import Render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def prompt_tokens(
    tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str], render: Render
) -> list[list[int]]:
    """The tokens of each prompt, after which a model's answer begins.

    Raises:
        ValueError: there is no chat template, or it refuses a prompt.
    """
    if render == "transcript":
        return tokenise(tokenizer, list(prompts))
    template = template_of(tokenizer)
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            chat_template=template,
            tokenize=False,
            add_generation_prompt=True,
        )
        for prompt in prompts
    ]
    return tokenise(tokenizer, [str(text) for text in texts])  # the template writes BOS itself


def completion_tokens(
    row_ids: Sequence[str],
    prompts: Sequence[str],
    answers: Sequence[Sequence[str]],
    tokenizer: PreTrainedTokenizerFast,
    *,
    render: Render,
    end_id: int,
    max_length_tokens: int,
) -> Tokens:
    """Rows of one prompt and m answers.

    A row that is too long loses the beginning of its prompt; an answer that alone is too long loses
    its end, and then has no end token. ``Tokens.truncated`` counts such rows.

    Args:
        answers: n rows of m texts.
    """
    heads = prompt_tokens(tokenizer, prompts, render)
    flat = iter(tokenise(tokenizer, [answer for row in answers for answer in row]))
    pieces: list[list[int]] = []
    truncated = 0
    for head, of_row in zip(heads, answers, strict=True):
        tails = [[*next(flat), end_id] for _ in of_row]
        cut = [tail[:max_length_tokens] for tail in tails]
        room = max_length_tokens - max(map(len, cut))
        kept = head[max(0, len(head) - room) :]
        truncated += len(kept) < len(head) or cut != tails
        pieces += kept, *cut
    sizes = np.fromiter(map(len, pieces), np.int64, len(pieces))
    per_row = len(answers[0]) if answers else 1
    return Tokens(
        row_ids=list(row_ids),
        ids=np.fromiter((i for piece in pieces for i in piece), np.int32, int(sizes.sum())),
        segments=sizes.reshape(-1, 1 + per_row),
        truncated=truncated,
    )
