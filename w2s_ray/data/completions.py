"""Prompts and their completions as tokens, for models that generate text or are trained on it.

A prompt is what a user writes; it becomes tokens by the model's own chat template, which then opens
the answer, or stays plain text. An answer is tokenised by itself, as it follows a prompt when it is
generated, and ends in the token at which generation stops.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from w2s_ray.data.rendering import (
    Rendering,
    RowError,
    check_rendering,
    first_line,
    template_of,
)
from w2s_ray.data.tokens import Tokens, tokenise
from w2s_ray.foreign.templates import check_template
from w2s_ray.spec.training import Render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def prompt_tokens(
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    render: Render,
    *,
    row_ids: Sequence[str] | None = None,
    name: str = "of the model",
) -> list[list[int]]:
    """The token ids of each prompt, up to where its answer begins.

    No special tokens are added beside those that a chat template writes.

    Args:
        render: ``chat_template`` renders the prompt as the only message, of the user, and opens the
            assistant's; ``transcript`` takes it as it is.
        row_ids: of the prompts, for messages; None: they are numbered from 1.
        name: of the tokenizer, for messages.

    Raises:
        InputError: the tokenizer has no chat template, or it exceeds a limit on some prompt.
        RowError: the template refuses a prompt, or a prompt has no tokens.
    """
    ids = row_ids or [str(number) for number in range(1, len(prompts) + 1)]
    distinct = list(dict.fromkeys(prompts))
    texts = distinct
    if render == "chat_template":
        check_rendering(tokenizer, Rendering(render="chat_template"), name)
        texts = _rendered(tokenizer, distinct, name, dict(zip(prompts, ids, strict=True)))
    tokens = dict(zip(distinct, tokenise(tokenizer, texts), strict=True))
    for row_id, prompt in zip(ids, prompts, strict=True):
        if not tokens[prompt]:
            raise RowError(row_id, "a prompt without tokens")
    return [tokens[prompt] for prompt in prompts]


def _rendered(
    tokenizer: PreTrainedTokenizerFast, prompts: list[str], name: str, row_of: dict[str, str]
) -> list[str]:
    """The text of each prompt by the chat template, which is tried in another process first."""
    template = template_of(tokenizer)
    conversations = [[{"role": "user", "content": prompt}] for prompt in prompts]
    variables = {
        "tools": None,
        "documents": None,
        "add_generation_prompt": True,
        **tokenizer.special_tokens_map,
    }
    check_template(template, variables, conversations, f"chat template of tokenizer {name}")
    texts: list[str] = []
    for prompt, messages in zip(prompts, conversations, strict=True):
        try:
            text = tokenizer.apply_chat_template(
                messages, chat_template=template, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # whatever the template's code raises
            reason = f"the chat template refuses it: {first_line(error)}"
            raise RowError(row_of[prompt], reason) from error
        assert isinstance(text, str)
        texts.append(text)
    return texts


def completion_tokens(
    row_ids: Sequence[str],
    prompts: Sequence[str],
    answers: Sequence[Sequence[str]],
    tokenizer: PreTrainedTokenizerFast,
    *,
    render: Render,
    end_id: int | None,
    max_length_tokens: int,
    name: str = "of the model",
) -> Tokens:
    """Rows ``prompt | answer 1, end | … | answer m, end``, in the given order.

    A prompt too long for its longest answer is cut on the left, equally for all answers of a row;
    BOS stays. An answer that leaves no room for one token of its prompt is cut on the right and
    then has no end token. Rows with either are counted in ``Tokens.truncated``.

    Args:
        answers: m of each row.
        end_id: of the token that ends an answer; None: it has no end token.
        max_length_tokens: most tokens of a prompt with one answer, at least 2.

    Raises:
        InputError, RowError: as ``prompt_tokens``.
    """
    assert max_length_tokens >= 2
    heads = prompt_tokens(tokenizer, prompts, render, row_ids=row_ids, name=name)
    tails = iter(tokenise(tokenizer, [answer for of_row in answers for answer in of_row]))
    end = [] if end_id is None else [end_id]
    pieces: list[list[int]] = []
    truncated = 0
    for head, of_row in zip(heads, answers, strict=True):
        whole = [next(tails) + end for _ in of_row]
        cut = [answer[: max_length_tokens - 1] for answer in whole]
        kept = _cut_on_the_left(head, max_length_tokens - max(map(len, cut)), tokenizer)
        truncated += len(kept) < len(head) or cut != whole
        pieces += kept, *cut
    per_row = len(answers[0]) if len(answers) else 1
    sizes = np.fromiter(map(len, pieces), np.int64, len(pieces))
    return Tokens(
        row_ids=list(row_ids),
        ids=np.fromiter((i for piece in pieces for i in piece), np.int32, int(sizes.sum())),
        segments=sizes.reshape(-1, 1 + per_row),
        truncated=truncated,
    )


def _cut_on_the_left(prompt: list[int], room: int, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The last ``room`` ≥ 1 tokens of a prompt; one at the beginning that is BOS stays."""
    if len(prompt) <= room:
        return prompt
    if room > 1 and prompt[0] == tokenizer.bos_token_id:
        return [prompt[0], *prompt[len(prompt) - room + 1 :]]
    return prompt[len(prompt) - room :]
