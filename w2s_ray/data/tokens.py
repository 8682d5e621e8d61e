"""Tokenised rows as ragged arrays, without padding and without dropping any row.

Prompt and answers are tokenised separately, and a row is stored as ``prompt | answer 1 | … | answer
m``. The texts of a row therefore share identical prompt tokens, which are stored and computed once.
No special tokens are added. Texts over the limit are truncated on the left: the prompt is cut to
fit with the longest answer, equally for all answers of a row, and an answer that alone exceeds the
limit is cut itself. Truncated rows are counted.
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
    def starts(self) -> NDArray[np.int64]:
        """(n,) start of each row in ``ids``."""
        return np.cumsum(self.row_lengths) - self.row_lengths


def encode(rows: pa.Table, tokenizer: PreTrainedTokenizerFast, max_length_tokens: int) -> Tokens:
    """Tokenise the columns ``prompt`` and ``answers`` of ``rows``, keeping their order.

    Raises:
        ValueError: a text has no tokens; the message names the row.
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
