"""The rows of a split through a model, one shard after the other.

A split need not fit in memory, since each shard is read, tokenised and computed by itself; and a
step that was killed resumes at its next shard, since each result is kept. A shard's result depends
on its rows alone, so several processes of a cluster may compute them (``Context.spread``). The
model is loaded when the first result is not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from w2s_ray.data.rendering import Rendering
from w2s_ray.data.tokens import Tokens, encode
from w2s_ray.steps.context import Context, Part
from w2s_ray.steps.prepare import Rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ROWS = 1024
MODEL = "model"  # the name under which the facts of the model are kept

Compute = Callable[[Tokens, Callable[[int], None]], NDArray[np.float32]]


class Loaded(NamedTuple):
    """A model that is ready.

    Attributes:
        compute: (tokens of n rows, a callback for the tokens done so far) → (n, …) float32.
        facts: what the step's record says of the model, kept beside its results; None: nothing.
    """

    compute: Compute
    facts: NDArray[np.bool_] | None = None


class Counts(NamedTuple):
    """What tokenising some rows gave: tokens, truncated rows, rows whose texts are identical."""

    tokens: int
    truncated: int
    identical: int

    @classmethod
    def of(cls, tokens: Tokens) -> Counts:
        return cls(len(tokens.ids), tokens.truncated, int(tokens.identical.sum()))

    def plus(self, other: Counts) -> Counts:
        """The counts of the rows of both."""
        return Counts(*(one + more for one, more in zip(self, other, strict=True)))


@dataclass(frozen=True)
class Sharded:
    """The splits of one data set, computed by one model shard by shard.

    Attributes:
        rows: the data set.
        splits: all splits that will be computed, in order; progress counts them together.
        tokenizer, max_length_tokens, rendering: make tokens of rows.
        load: gives the model; called once, if a result is not kept.
        context: keeps results and takes the progress.
        others: further rows to compute, each table as one part, by the name of its result.
    """

    rows: Rows
    splits: tuple[str, ...]
    tokenizer: PreTrainedTokenizerFast
    max_length_tokens: int
    rendering: Rendering
    load: Callable[[Sharded], Loaded]
    context: Context
    others: Mapping[str, pa.Table] = field(default_factory=dict)

    @cached_property
    def model(self) -> Loaded:
        """The model, loaded now if it has not been; its facts are kept before any result."""
        model = self.load(self)
        if (facts := model.facts) is not None:
            self.context.keep(MODEL, lambda: facts)
        return model

    @property
    def facts(self) -> NDArray[np.bool_]:
        """What the record says of the model, which is not loaded if that is kept."""
        return self.context.keep(MODEL, self._loaded_facts)

    def _loaded_facts(self) -> NDArray[np.bool_]:
        facts = self.model.facts
        assert facts is not None
        return facts

    def tokens_expected(self) -> int:
        """Estimate of the tokens of all splits, from the first shard whatever is kept."""
        first = self.read(self.parts(self.splits[0])[0])
        tokens = self.encoded(first)
        rows = sum(self.rows.count(split) for split in self.splits)
        return rows * len(tokens.ids) // len(tokens.row_ids)

    def parts(self, *splits: str) -> list[Part]:
        """The parts of some splits, in the order of their tables."""
        return [
            Part(f"{split}-{number:05}-of-{ROWS}", split, start, min(ROWS, rows - start))
            for split in splits
            for rows in [self.rows.count(split)]
            for number, start in enumerate(range(0, rows, ROWS))
        ]

    def spread(self) -> Mapping[str, object]:
        """Has the context compute what is not kept; metrics of that."""
        others = [Part(name, name, 0, rows.num_rows) for name, rows in self.others.items()]
        return self.context.spread([*self.parts(*self.splits), *others])

    def read(self, part: Part) -> pa.Table:
        """The rows of a part."""
        if part.name in self.others:
            return self.others[part.name]
        return self.rows.slice(part.split, part.start, part.rows)

    def encoded(self, rows: pa.Table) -> Tokens:
        """Rows as tokens."""
        return encode(rows, self.tokenizer, self.max_length_tokens, self.rendering)

    def of(self, split: str) -> Iterator[Shard]:
        """The shards of a split, in the order of the table."""
        before = self.splits[: self.splits.index(split)]
        done = sum(self.rows.count(name) for name in before)
        parts = self.parts(split)
        for part, rows in zip(parts, self.rows.shards(split, ROWS), strict=True):
            yield Shard(self, part, rows, partial(self._report, done + part.start))

    def values(self, split: str) -> NDArray[np.float32]:
        """(n, …) float32 of all rows of a split."""
        return np.concatenate([shard.values for shard in self.of(split)])

    def other(self, name: str) -> NDArray[np.float32]:
        """(n, …) float32 of the further rows of this name."""
        rows = self.others[name]
        part = Part(name, name, 0, rows.num_rows)
        return Shard(self, part, rows, lambda tokens, done: None).values

    def _report(self, before: int, tokens: Tokens, computed: int) -> None:
        share = len(tokens.row_ids) * computed // len(tokens.ids)
        rows = sum(self.rows.count(split) for split in self.splits)
        self.context.progress({"step": before + share, "steps": rows, "unit": "rows"})


@dataclass(frozen=True)
class Shard:
    """Rows of a split; tokens and results are made, or read, when they are first asked for.

    Attributes:
        rows: n rows.
        report: takes the tokens and how many of them are done.
    """

    sharded: Sharded
    part: Part
    rows: pa.Table
    report: Callable[[Tokens, int], None]

    @property
    def row_ids(self) -> list[str]:
        """n ids."""
        row_ids: list[str] = self.rows["row_id"].to_pylist()
        return row_ids

    @cached_property
    def tokens(self) -> Tokens:
        """The rows as tokens."""
        return self.sharded.encoded(self.rows)

    @cached_property
    def values(self) -> NDArray[np.float32]:
        """(n, …) float32, kept."""
        return self.sharded.context.keep(self.part.name, self._compute)

    @property
    def counts(self) -> Counts:
        """Counts of the tokens, kept: who only assembles need not tokenise."""
        kept = self.sharded.context.keep(self.part.counts_name, self._count)
        return Counts(*kept.tolist())

    def _compute(self) -> NDArray[np.float32]:
        return self.sharded.model.compute(self.tokens, partial(self.report, self.tokens))

    def _count(self) -> NDArray[np.int64]:
        return np.array(Counts.of(self.tokens))
