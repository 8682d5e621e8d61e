"""The rows of a split through a model, a shard at a time.

Texts are read, tokenised and computed one shard after the other, so that a split need not fit in
memory; what was computed of a shard is kept, so that a step that was killed goes on at the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from w2s_ray.data.tokens import Tokens, encode
from w2s_ray.steps.context import Context
from w2s_ray.steps.prepare import Rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ROWS = 1024

Compute = Callable[[Tokens, Callable[[int], None]], NDArray[np.float32]]


@dataclass(frozen=True)
class Sharded:
    """Splits of one data set, on their way through one model.

    Attributes:
        rows: the data set.
        splits: those that will be asked for, in order; they make up the progress.
        tokenizer, max_length_tokens: how texts are cut into tokens.
        compute: (tokens of b rows, what takes the tokens done so far) → (b, …) float32.
        context: keeps what is computed and takes the progress.
    """

    rows: Rows
    splits: tuple[str, ...]
    tokenizer: PreTrainedTokenizerFast
    max_length_tokens: int
    compute: Compute
    context: Context

    def tokens_expected(self) -> int:
        """Tokens of all splits, by those of the first shard: the same whatever was kept."""
        first = next(self.rows.shards(self.splits[0], ROWS))
        tokens = encode(first, self.tokenizer, self.max_length_tokens)
        rows = sum(self.rows.count(split) for split in self.splits)
        return rows * len(tokens.ids) // len(tokens.row_ids)

    def of(self, split: str) -> Iterator[tuple[Tokens, NDArray[np.float32]]]:
        """Tokens and values of each shard, in the order of the table."""
        sizes = {name: self.rows.count(name) for name in self.splits}
        done = sum(sizes[name] for name in self.splits[: self.splits.index(split)])
        for number, table in enumerate(self.rows.shards(split, ROWS)):
            tokens = encode(table, self.tokenizer, self.max_length_tokens)

            report = partial(self._report, done, sum(sizes.values()), tokens)
            values = self.context.keep(
                f"{split}-{number:05}-of-{ROWS}", partial(self.compute, tokens, report)
            )
            done += len(tokens.row_ids)
            yield tokens, values

    def _report(self, before: int, steps: int, tokens: Tokens, computed: int) -> None:
        share = len(tokens.row_ids) * computed // len(tokens.ids)
        self.context.progress({"step": before + share, "steps": steps, "unit": "rows"})
