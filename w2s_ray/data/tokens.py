"""Rows as tokens: ragged arrays, nothing padded, nothing dropped.

Prompt and answers are tokenised apart and joined, so that the answers of a pair share the very
tokens of their prompt. No special tokens are added. Over-long texts lose their beginning: the
prompt is cut by what the longest answer leaves room for, the same for all answers of a row; an
answer longer than the limit is cut on its own left. Rows that were cut are counted.
"""

from __future__ import annotations

from dataclasses import dataclass
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
        ids: (total,) int32, all texts one after the other: row 0 text 0, row 0 text 1, ….
        offsets: (n·m + 1,) int64, where each text begins in ``ids``.
        prompt_lengths: (n,) int64, leading tokens that the texts of a row share as their prompt.
        per_row: m.
        truncated: rows that lost tokens.
    """

    row_ids: list[str]
    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    prompt_lengths: NDArray[np.int64]
    per_row: int
    truncated: int

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n, m) tokens of each text."""
        return np.diff(self.offsets).reshape(-1, self.per_row)

    @property
    def row_lengths(self) -> NDArray[np.int64]:
        """(n,) tokens of the longest text of each row."""
        longest: NDArray[np.int64] = self.lengths.max(axis=1)
        return longest


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
    prompt_lengths = np.empty(len(row_ids), dtype=np.int64)
    truncated = 0
    for place, (row_id, prompt) in enumerate(zip(row_ids, prompts, strict=True)):
        head = prompt_ids[prompt]
        tails = [next(answer_ids) for _ in range(per_row)]
        room = max(0, max_length_tokens - max(map(len, tails)))
        kept = head[max(0, len(head) - room) :]
        cut = [tail[-max_length_tokens:] for tail in tails]
        truncated += len(kept) < len(head) or cut != tails
        prompt_lengths[place] = len(kept)
        for tail in cut:
            if not kept and not tail:
                raise ValueError(f"row {row_id}: a text without tokens")
            pieces += kept, tail
    sizes = [len(kept) + len(tail) for kept, tail in zip(pieces[::2], pieces[1::2], strict=True)]
    return Tokens(
        row_ids=row_ids,
        ids=np.fromiter((i for piece in pieces for i in piece), np.int32, sum(sizes)),
        offsets=np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64),
        prompt_lengths=prompt_lengths,
        per_row=per_row,
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
