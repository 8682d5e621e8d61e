"""The rows of a split through a model, one shard after the other.

A split need not fit in memory, since each shard is read, tokenised and computed by itself; and a
step that was killed resumes at its next shard, since each result is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from w2s_ray.data.rendering import Rendering
from w2s_ray.data.tokens import Tokens, encode
from w2s_ray.steps.context import Context
from w2s_ray.steps.prepare import Rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ROWS = 1024

Compute = Callable[[Tokens, Callable[[int], None]], NDArray[np.float32]]


@dataclass(frozen=True)
class Sharded:
    """The splits of one data set, computed by one model shard by shard.

    Attributes:
        rows: the data set.
        splits: all splits that will be computed, in order; progress counts them together.
        tokenizer, max_length_tokens, rendering: make tokens of rows.
        compute: (tokens of n rows, a callback for the tokens done so far) → (n, …) float32.
        context: keeps results and takes the progress.
    """

    rows: Rows
    splits: tuple[str, ...]
    tokenizer: PreTrainedTokenizerFast
    max_length_tokens: int
    rendering: Rendering
    compute: Compute
    context: Context

    def tokens_expected(self) -> int:
        """Estimate of the tokens of all splits, from the first shard whatever is kept."""
        first = next(self.rows.shards(self.splits[0], ROWS))
        tokens = self._encoded(first)
        rows = sum(self.rows.count(split) for split in self.splits)
        return rows * len(tokens.ids) // len(tokens.row_ids)

    def of(self, split: str) -> Iterator[tuple[Tokens, NDArray[np.float32]]]:
        """Tokens and results of each shard, in the order of the table."""
        sizes = {name: self.rows.count(name) for name in self.splits}
        done = sum(sizes[name] for name in self.splits[: self.splits.index(split)])
        for number, table in enumerate(self.rows.shards(split, ROWS)):
            tokens = self._encoded(table)
            report = partial(self._report, done, sum(sizes.values()), tokens)
            values = self.context.keep(
                f"{split}-{number:05}-of-{ROWS}", partial(self.compute, tokens, report)
            )
            done += len(tokens.row_ids)
            yield tokens, values

    def _encoded(self, rows: pa.Table) -> Tokens:
        return encode(rows, self.tokenizer, self.max_length_tokens, self.rendering)

    def _report(self, before: int, steps: int, tokens: Tokens, computed: int) -> None:
        share = len(tokens.row_ids) * computed // len(tokens.ids)
        self.context.progress({"step": before + share, "steps": steps, "unit": "rows"})
