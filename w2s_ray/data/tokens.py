"""Tokenised rows as ragged arrays, without padding and without dropping any row.

A row is stored as ``prompt | answer 1 | … | answer m``: its texts share identical prompt tokens,
which are stored and computed once. Prompt and answers are tokenised separately where the tokenizer
joins pieces exactly (``joining``); with any other, and with a chat template, the m whole texts are
tokenised and what their tokens have in common at the beginning is the prompt. Either way the tokens
of a text spell the text as the tokenizer writes it. No special tokens are added, except BOS where
the spec asks for it.

Texts over the limit are truncated on the left: the prompt is cut to fit with the longest answer,
equally for all answers of a row, and an answer that alone exceeds the limit is cut itself; BOS
stays. Truncated rows are counted, and so are pairs whose answers are the same tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from w2s_ray.data.joining import loaded_joins_exactly
from w2s_ray.data.rendering import TRANSCRIPT, Rendering, RowError, chats

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Tokens:
    """The tokens of n rows with m texts each.

    Attributes:
        row_ids: n ids.
        ids: (total,) int32 token ids, row after row: the prompt, then the answers.
        segments: (n, 1 + m) int64 lengths of the prompt and of each answer in tokens.
        truncated: how many rows were truncated.
    """

    row_ids: list[str]
    ids: NDArray[np.int32]
    segments: NDArray[np.int64]
    truncated: int

    def take(self, rows: NDArray[np.int64]) -> Tokens:
        """The tokens of some rows, in the given order; ``truncated`` stays that of all."""
        pieces = [self.ids[self.starts[r] : self.starts[r] + self.row_lengths[r]] for r in rows]
        return Tokens(
            row_ids=[self.row_ids[r] for r in rows],
            ids=np.concatenate([self.ids[:0], *pieces]),
            segments=self.segments[rows],
            truncated=self.truncated,
        )

    @property
    def per_row(self) -> int:
        """m, texts per row."""
        return int(self.segments.shape[1]) - 1

    @property
    def text_lengths(self) -> NDArray[np.int64]:
        """(n, m) length of each text in tokens, including its prompt."""
        lengths: NDArray[np.int64] = self.segments[:, :1] + self.segments[:, 1:]
        return lengths

    @cached_property
    def row_lengths(self) -> NDArray[np.int64]:
        """(n,) tokens to compute for each row, counting its prompt once."""
        lengths: NDArray[np.int64] = self.segments.sum(axis=1)
        return lengths

    @cached_property
    def identical(self) -> NDArray[np.bool_]:
        """(n,) whether all texts of a row are the same tokens; never where m is 1.

        Most such pairs differed only in what truncation cut off. No model can tell their answers
        apart.
        """
        alike = np.zeros(len(self.row_ids), dtype=np.bool_)
        answers = self.segments[:, 1:]
        same_length = np.flatnonzero((answers == answers[:, :1]).all(axis=1))
        for row in same_length if self.per_row > 1 else ():
            start = self.starts[row] + self.segments[row, 0]
            tails = self.ids[start : start + answers[row].sum()].reshape(self.per_row, -1)
            alike[row] = (tails == tails[0]).all()
        return alike

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(n,) start of each row in ``ids``."""
        return np.cumsum(self.row_lengths) - self.row_lengths


class _Pieces(NamedTuple):
    """The tokens of a row: what its texts share, and the rest of each."""

    head: list[int]
    tails: list[list[int]]


def encode(
    rows: pa.Table,
    tokenizer: PreTrainedTokenizerFast,
    max_length_tokens: int,
    rendering: Rendering = TRANSCRIPT,
) -> Tokens:
    """Tokenise the columns ``prompt`` and ``answers`` of ``rows``, keeping their order.

    A chat template reads the column ``messages`` instead.

    Raises:
        RowError: a text has no tokens, or the chat template refuses the row.
    """
    row_ids = rows["row_id"].to_pylist()
    bos = [int(tokenizer.bos_token_id)] if rendering.bos else []
    per_row = len(rows["answers"][0]) if rows.num_rows else 1
    pieces: list[list[int]] = []
    truncated = 0
    for row_id, (head, tails) in zip(row_ids, _pieces(rows, tokenizer, rendering), strict=True):
        longest = max_length_tokens - len(bos)
        room = max(0, longest - max(map(len, tails)))
        kept = head[max(0, len(head) - room) :]
        cut = [tail[-longest:] for tail in tails]
        truncated += len(kept) < len(head) or cut != tails
        if not kept and not all(cut):
            raise RowError(row_id, "a text without tokens")
        pieces += bos + kept, *cut
    sizes = np.fromiter(map(len, pieces), np.int64, len(pieces))
    return Tokens(
        row_ids=row_ids,
        ids=np.fromiter((i for piece in pieces for i in piece), np.int32, int(sizes.sum())),
        segments=sizes.reshape(-1, 1 + per_row),
        truncated=truncated,
    )


def _pieces(
    rows: pa.Table, tokenizer: PreTrainedTokenizerFast, rendering: Rendering
) -> Iterator[_Pieces]:
    """The tokens of each row before truncation."""
    if rendering.render == "chat_template":
        return _of_whole(chats(rows, tokenizer), tokenizer)
    prompts, answers = rows["prompt"].to_pylist(), rows["answers"].to_pylist()
    if loaded_joins_exactly(tokenizer):
        return _in_pieces(prompts, answers, tokenizer)
    texts = [
        [prompt + answer for answer in of_row]
        for prompt, of_row in zip(prompts, answers, strict=True)
    ]
    return _of_whole(texts, tokenizer)


def _in_pieces(
    prompts: Sequence[str], answers: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerFast
) -> Iterator[_Pieces]:
    """Prompts and answers, each tokenised by itself; a prompt of several rows once."""
    distinct = list(dict.fromkeys(prompts))
    prompt_ids = dict(zip(distinct, tokenise(tokenizer, distinct), strict=True))
    answer_ids = iter(tokenise(tokenizer, [answer for row in answers for answer in row]))
    for prompt, of_row in zip(prompts, answers, strict=True):
        yield _Pieces(prompt_ids[prompt], [next(answer_ids) for _ in of_row])


def _of_whole(
    texts: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerFast
) -> Iterator[_Pieces]:
    """Whole texts, whose common beginning is the head; a tail keeps at least its last token."""
    ids = iter(tokenise(tokenizer, [text for row in texts for text in row]))
    for of_row in texts:
        whole = [next(ids) for _ in of_row]
        shared = 0
        if len(whole) > 1:
            most = max(0, min(map(len, whole)) - 1)
            first, *others = whole
            while shared < most and all(text[shared] == first[shared] for text in others):
                shared += 1
        yield _Pieces(whole[0][:shared], [text[shared:] for text in whole])


def tokenise(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    """The token ids of each text, without special tokens."""
    if not texts:
        return []
    encoded = tokenizer(
        texts,
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids
