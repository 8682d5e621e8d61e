"""Rows as tokens: ragged arrays, nothing padded, nothing dropped.

Prompt and answers are tokenised apart, and a row is kept as ``prompt | answer 1 | … | answer m``:
the texts of a row share the very tokens of their prompt, which therefore stand, and are computed,
once. No special tokens are added. Over-long texts lose their beginning: the prompt is cut by what
the longest answer leaves room for, the same for all answers of a row; an answer longer than the
limit is cut on its own left. Rows that were cut are counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Tokens:
    """n rows of m texts each.

    Attributes:
        row_ids: n ids.
        ids: (total,) int32, row after row: its prompt, then its answers.
        segments: (n, 1 + m) int64, tokens of the prompt and of each answer.
        truncated: rows that lost tokens.
    """

    row_ids: list[str]
    ids: NDArray[np.int32]
    segments: NDArray[np.int64]
    truncated: int

    @property
    def per_row(self) -> int:
        """m, texts of a row."""
        return int(self.segments.shape[1]) - 1

    @property
    def text_lengths(self) -> NDArray[np.int64]:
        """(n, m) tokens of each text, its prompt included."""
        lengths: NDArray[np.int64] = self.segments[:, :1] + self.segments[:, 1:]
        return lengths

    @cached_property
    def row_lengths(self) -> NDArray[np.int64]:
        """(n,) tokens that each row costs, its prompt counted once."""
        lengths: NDArray[np.int64] = self.segments.sum(axis=1)
        return lengths

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(n,) where each row begins in ``ids``."""
        return np.cumsum(self.row_lengths) - self.row_lengths


def encode(rows: pa.Table, tokenizer: PreTrainedTokenizerFast, max_length_tokens: int) -> Tokens:
    """Tokenises columns ``prompt`` and ``answers`` of ``rows``, in their order.

    Raises:
        ValueError: a text without a single token; the row is named.
    """
    row_ids = rows["row_id"].to_pylist()
    prompts, answers = rows["prompt"].to_pylist(), rows["answers"].to_pylist()
    distinct = list(dict.fromkeys(prompts))
    prompt_ids = dict(zip(distinct, _tokenise(tokenizer, distinct), strict=True))
    answer_ids = iter(_tokenise(tokenizer, [answer for row in answers for answer in row]))
    per_row = len(answers[0]) if answers else 1
    pieces: list[list[int]] = []
    truncated = 0
    for row_id, prompt in zip(row_ids, prompts, strict=True):
        head = prompt_ids[prompt]
        tails = [next(answer_ids) for _ in range(per_row)]
        room = max(0, max_length_tokens - max(map(len, tails)))
        kept = head[max(0, len(head) - room) :]
        cut = [tail[-max_length_tokens:] for tail in tails]
        truncated += len(kept) < len(head) or cut != tails
        if not kept and not all(cut):
            raise ValueError(f"row {row_id}: a text without tokens")
        pieces += kept, *cut
    sizes = np.fromiter(map(len, pieces), np.int64, len(pieces))
    return Tokens(
        row_ids=row_ids,
        ids=np.fromiter((i for piece in pieces for i in piece), np.int32, int(sizes.sum())),
        segments=sizes.reshape(-1, 1 + per_row),
        truncated=truncated,
    )


def _tokenise(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
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
