"""Generates answers from one model, or from two or three whose scores are combined by token.

transformers' ``generate`` combines models by a logits processor, but draws from one random stream,
so that a sample depends on its batch. Here every row has a seed of its own: its tokens are the same
in any batch and order, but for rounding. Samples of one prompt share its computation, rows that
ended leave the batch, and caches grow in place.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from w2s_ray.capacity.token_budgets import DECODED_ROWS
from w2s_ray.errors import InputError
from w2s_ray.models.causal import CausalModel
from w2s_ray.models.decoding_batch import (
    COMBINED,
    ROLES,
    Answer,
    Batch,
    Decoding,
    EndedBy,
    Mode,
    first_stop,
    text_of,
)
from w2s_ray.models.key_value_cache import growing_cache

__all__ = [
    "COMBINED",
    "ROLES",
    "Decoded",
    "Decoding",
    "EndedBy",
    "Mode",
    "check_same_vocabulary",
    "decode",
]


class Decoded(NamedTuple):
    """n answers, in the order of their prompts.

    Attributes:
        tokens: those drawn, without the end token.
        texts: of the tokens, without special ones; cut at the first stop string.
        finished: False for an answer that was cut off at ``max_new_tokens``.
        ended_by: "end" token, "stop" string or "length".
        log_probs: (n,) by role: summed log π of the tokens drawn, the end token included, under
            that model at temperature 1; of a proxy also ``COMBINED``, under the three together.
        end_tokens: the one that was drawn; None where a stop string or the length ended the answer.
    """

    tokens: list[list[int]]
    texts: list[str]
    finished: list[bool]
    ended_by: list[EndedBy]
    log_probs: dict[str, NDArray[np.float32]]
    end_tokens: list[int | None]


def check_same_vocabulary(a: CausalModel, b: CausalModel) -> None:
    """Refuses two models whose scores cannot be combined token by token.

    Heads may be wider than the tokenizer, each in its own way: no text has those tokens.

    Raises:
        InputError: their tokenizers give different ids; names both models.
    """
    ours, theirs = a.tokenizer.get_vocab(), b.tokenizer.get_vocab()
    if ours == theirs:
        return
    differ = sorted(t for t in ours.keys() | theirs.keys() if ours.get(t) != theirs.get(t))
    raise InputError(
        f"models {a.name} and {b.name}: {len(differ)} tokens of their tokenizers differ, the first "
        f"is {differ[0]!r}: contrastive and proxy decoding need one vocabulary"
    )


def decode(
    models: Mapping[str, CausalModel],
    prompts: Sequence[Sequence[int]],
    seeds: NDArray[np.uint64],
    decoding: Decoding,
    *,
    batch_rows: int = DECODED_ROWS,
    batch_tokens: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Decoded:
    """Generates one answer to each prompt; several samples of one are equal prompts.

    Args:
        models: by the roles of the mode; see ``ROLES``.
        prompts: n token sequences.
        seeds: (n,); each keys a Philox generator, whose numbers draw the row's tokens in turn.
        batch_rows: largest number of rows in a batch.
        batch_tokens: largest number of tokens in a batch's cache, prompts and answers; a row that
            needs more is a batch of its own. None: no limit.
        progress: called after every token of a batch with the number of rows ended so far.

    Raises:
        InputError: an empty prompt, one too long for a model, or models of different vocabularies.
        FloatingPointError: log-probabilities that are not finite; names the prompt.
    """
    assert set(models) == set(ROLES[decoding.mode]), (decoding.mode, sorted(models))
    assert len(prompts) == len(seeds)
    for other in models.values():
        check_same_vocabulary(models["model"], other)
    _check_lengths(models, prompts, decoding.max_new_tokens)
    answers: list[Answer | None] = [None] * len(prompts)
    done = 0
    for rows in _batches(models, prompts, decoding, batch_rows, batch_tokens):
        batch = Batch(models, [prompts[i] for i in rows], seeds[rows], decoding)
        while not batch.ended:
            batch.step()
            progress(done + batch.done)
        done += len(rows)
        for i, answer in zip(rows, batch.answers, strict=True):
            if not np.isfinite(list(answer.log_probs.values())).all():
                raise FloatingPointError(f"prompt {i}: log-probabilities of its answer: not finite")
            answers[i] = answer
    return _collect([answer for answer in answers if answer is not None], models, decoding)


def _check_lengths(
    models: Mapping[str, CausalModel], prompts: Sequence[Sequence[int]], new: int
) -> None:
    """Refuses prompts that cannot be answered."""
    for i, prompt in enumerate(prompts):
        if not len(prompt):
            raise InputError(f"prompt {i}: it has no tokens, expected at least 1")
        for model in models.values():
            limit = getattr(model.module.config, "max_position_embeddings", None)
            if limit is not None and len(prompt) + new > limit:
                raise InputError(
                    f"prompt {i}: {len(prompt)} tokens and {new} new ones exceed the {limit} "
                    f"positions of model {model.name}"
                )


def _batches(
    models: Mapping[str, CausalModel],
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    batch_rows: int,
    batch_tokens: int | None,
) -> Iterator[list[int]]:
    """Rows by length, longest first, equal prompts together.

    Of a model that takes no positions, or that has recurrent layers, a batch has prompts of one
    length, since padding on the left would change them.
    """
    padded = all(
        "position_ids" in inspect.signature(model.module.forward).parameters
        and not any(growing_cache(model.module.config).is_linear)
        for model in models.values()
    )
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), tuple(prompts[i]), i))
    batch: list[int] = []
    for i in order:
        if batch:
            longest = len(prompts[batch[0]])
            tokens = (len(batch) + 1) * (longest + decoding.max_new_tokens)
            full = len(batch) == batch_rows or (batch_tokens is not None and tokens > batch_tokens)
            if full or (not padded and len(prompts[i]) != longest):
                yield batch
                batch = []
        batch.append(i)
    if batch:
        yield batch


def _collect(
    answers: Sequence[Answer], models: Mapping[str, CausalModel], decoding: Decoding
) -> Decoded:
    """The answers as columns, with their texts."""
    tokenizer = models["model"].tokenizer
    texts = [text_of(tokenizer, answer.tokens) for answer in answers]
    return Decoded(
        [answer.tokens for answer in answers],
        [text[: first_stop(text, decoding.stop)] for text in texts],
        [answer.ended_by != "length" for answer in answers],
        [answer.ended_by for answer in answers],
        {
            role: np.array([answer.log_probs[role] for answer in answers], dtype=np.float32)
            for role in (answers[0].log_probs if answers else models)
        },
        [answer.end_token for answer in answers],
    )
