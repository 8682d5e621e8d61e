"""Rows on full fine-tuning: pairs/s against TRL, tokens computed, and the GEMM rate."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.gemm import Gemms
from benchmarks.measure import Row, alternate, share, times_faster
from benchmarks.options import Options
from benchmarks.pairs import (
    BATCH_SIZE,
    MAX_LENGTH_TOKENS,
    MODEL,
    PAIRS,
    batches,
    count,
    text_ids,
    tokenised,
    train_job,
)
from benchmarks.sides import Side
from w2s_ray.catalog.digests import local_path
from w2s_ray.data.tokens import Tokens
from w2s_ray.models.gguf import unpacked
from w2s_ray.training.job import memory_stream

WARMUP = 2
TRL: dict[str, Any] = {
    "micro_batch": 4,
    "attention": "eager",
    "dtype": "bfloat16",
    "autocast": False,
    "compile": False,
}
"""TRL's fastest options, according to ``TUNING``."""
TUNING: dict[str, dict[str, Any]] = {
    "micro-batch 1": {"micro_batch": 1},
    "micro-batch 2": {"micro_batch": 2},
    "micro-batch 8": {"micro_batch": 8},
    "micro-batch 16": {"micro_batch": 16},
    "SDPA": {"attention": "sdpa"},
    "pairs of a batch sorted by length": {"by_length": True},
    "fp32 weights, bf16 autocast": {"dtype": "float32", "autocast": True},
    "torch.compile": {"compile": True},
}
"""Alternatives, each a change to ``TRL``."""

AGAINST: dict[str, tuple[str, dict[str, Any]]] = {
    # Ours computes in bf16 and keeps fp32 weights; TRL does so with autocast, its default.
    "trl": ("fp32 weights, bf16 autocast", {"dtype": "float32", "autocast": True}),
    "trl_bf16": ("bf16 weights", {}),
    "trl_helped": ("bf16 weights, each batch presorted by length", {"by_length": True}),
}


def trl(options: Options) -> Iterator[Row]:
    """Against TRL at our precision, at its fastest, and with presorted batches."""
    for name, variant in AGAINST.items():
        yield _against_trl(options, "real", name, "real pairs", 3.0, variant)


def long_prompts(options: Options) -> Iterator[Row]:
    """Against TRL on prompts twice as long as an answer."""
    name = "long_prompts"
    yield _against_trl(options, name, name, "long-prompt pairs", 3.5, AGAINST["trl"])


def _against_trl(
    options: Options,
    pairs: str,
    name: str,
    title: str,
    target: float,
    variant: tuple[str, dict[str, Any]],
) -> Row:
    steps, rounds = options.size(5, 1), options.rounds
    description, changes = variant
    table = options.limited(PAIRS[pairs]())
    tokens = tokenised(table)
    visits = batches(tokens, WARMUP + steps * rounds)
    with ExitStack() as stack:
        ours = stack.enter_context(_our_side(options, pairs))
        other = stack.enter_context(_trl_side(options, table, tokens, visits, changes))
        measured = alternate(rounds, _timing(ours, steps), _timing(other, steps))
        processed, given = other.last["tokens"], count(tokens, np.concatenate(visits)).texts
        if processed != given:
            raise RuntimeError(f"TRL processed {processed:,} tokens of {given:,}")
    trained = BATCH_SIZE * steps
    prompt, answer = tokens.segments[:, 0].mean(), tokens.segments[:, 1:].mean()
    best = {side: max(trained / entry[side] for entry in measured) for side in ("ours", "other")}
    return Row(
        name=name,
        measure=f"training, pairs/s, {title}",
        against=f"TRL RewardTrainer, {description}",
        values=times_faster(measured),
        target=target,
        note=(
            f"{best['ours']:.2f} against {best['other']:.2f} pairs/s at best; {steps} steps of "
            f"{BATCH_SIZE} pairs per round; mean prompt {prompt:.0f}, answer {answer:.0f} tokens"
        ),
        rounds=measured,
    )


def tuning(options: Options) -> Iterator[Row]:
    """The effect of each option of TRL, against its chosen value, with two processes per row."""
    steps = options.size(4, 1)
    table = options.limited(PAIRS["real"]())
    tokens = tokenised(table)
    visits = batches(tokens, WARMUP + steps * options.rounds)
    for name, changes in TUNING.items():
        with ExitStack() as stack:
            changed = stack.enter_context(_trl_side(options, table, tokens, visits, changes))
            chosen = stack.enter_context(_trl_side(options, table, tokens, visits, {}))
            measured = alternate(options.rounds, _timing(changed, steps), _timing(chosen, steps))
        yield Row(
            name=f"tuning: {name}",
            measure=f"TRL's pairs/s: {name}",
            against="TRL as chosen",
            values=times_faster(measured),
            rounds=measured,
        )


def _timing(side: Side, steps: int) -> Callable[[], float]:
    """A function that measures the seconds of ``side`` for its next ``steps``."""
    return partial(_seconds, side, steps)


def _seconds(side: Side, steps: int) -> float:
    return float(side.ask(steps=steps)["seconds"])


def _our_side(options: Options, pairs: str) -> Side:
    settings = {
        "pairs": pairs,
        "rows": options.rows_of_data,
        "warmup": WARMUP,
        "threads": options.threads,
        "execution": options.execution,
    }
    return Side("side_ours", settings, threads=options.threads)


def _trl_side(
    options: Options,
    table: pa.Table,
    tokens: Tokens,
    visits: list[NDArray[np.int64]],
    changes: dict[str, Any],
) -> Side:
    choices = {"by_length": False, **TRL, **changes}
    file = options.scratch / f"pairs-{len(visits)}-{choices['by_length']}-{table.num_rows}.parquet"
    write_pairs(file, table, tokens, visits, by_length=choices.pop("by_length"))
    settings = {
        "pairs": str(file),
        "model": str(unpacked(local_path(MODEL["source"]))),
        "batch_size": BATCH_SIZE,
        "max_length": MAX_LENGTH_TOKENS,
        "warmup": WARMUP,
        "threads": options.threads,
        **choices,
    }
    return Side("side_trl", settings, threads=options.threads, python=options.trl_python)


def write_pairs(
    file: Path,
    table: pa.Table,
    tokens: Tokens,
    visits: list[NDArray[np.int64]],
    *,
    by_length: bool,
) -> None:
    """Write ``chosen_ids`` and ``rejected_ids`` in the order of ``visits``.

    Args:
        file: where to write.
        table: the pairs.
        tokens: their tokens.
        visits: rows of each optimizer batch.
        by_length: put the longest pairs of each batch first, for less padding in micro-batches.
    """
    labels = table["label"].to_numpy()
    longest = tokens.text_lengths.max(axis=1)
    chosen, rejected = [], []
    for rows in visits:
        ordered = rows[np.argsort(-longest[rows], kind="stable")] if by_length else rows
        for row in ordered.tolist():
            first, second = text_ids(tokens, row)
            chosen.append(first if labels[row] == 1 else second)
            rejected.append(second if labels[row] == 1 else first)
    pq.write_table(pa.table({"chosen_ids": chosen, "rejected_ids": rejected}), file)


def tokens_computed(options: Options) -> Iterator[Row]:
    """Tokens that the blocks process in one epoch, including padding."""
    table = options.limited(PAIRS["real"]())
    job, tokens = train_job(table, options.execution), tokenised(table)
    computed = sum(
        batch.inputs["input_ids"].numel() for step in memory_stream(job, tokens) for batch in step
    )
    visits = batches(tokens, len(table))
    longest = tokens.text_lengths.max(axis=1)
    padded = sum(2 * len(rows) * int(longest[rows].max()) for rows in visits)
    all_rows = count(tokens, np.arange(len(table)))
    yield Row(
        name="tokens",
        measure="tokens computed for the real pairs",
        against="separate rows padded to the longest of a random batch of 16",
        values=[computed / padded],
        target=0.27,
        at_least=False,
        counted=True,
        note=(
            f"{computed:,} against {padded:,}; without padding {all_rows.texts:,}, "
            f"each prompt once {all_rows.distinct:,} ({all_rows.distinct / padded:.3f})"
        ),
        rounds=[{"ours": computed, "other": padded}],
    )


def gemm(options: Options) -> Iterator[Row]:
    """6 N tokens/s of training relative to the rate of the matrix products alone."""
    steps, rounds = options.size(8, 1), options.rounds
    table = options.limited(PAIRS["real"]())
    job = train_job(table, options.execution)
    stream = list(islice(memory_stream(job, tokenised(table)), WARMUP + steps * rounds))
    sizes = [batch.inputs["input_ids"].numel() for step in stream for batch in step]
    tokens = iter(
        sum(batch.tokens for step in stream[first : first + steps] for batch in step)
        for first in range(WARMUP, len(stream), steps)
    )
    gemms = Gemms(MODEL, round(float(np.mean(sizes))), options.threads, options.size(30, 2))
    with _our_side(options, "real") as side:
        measured = alternate(
            rounds,
            lambda: 6 * gemms.parameters * next(tokens) / side.ask(steps=steps)["seconds"],
            gemms.rate,
        )
    best = {side: max(entry[side] for entry in measured) / 1e9 for side in ("ours", "other")}
    yield Row(
        name="gemm",
        measure="achieved GEMM rate of training, 6 N tokens/s",
        against="bf16 GEMMs of the model's shapes, forward and both backward",
        values=share(measured),
        target=0.6,
        note=(
            f"{best['ours']:.0f} against {best['other']:.0f} GFLOP/s at best; N = "
            f"{gemms.parameters / 1e6:.1f} M, the blocks' matrices without embeddings; real tokens "
            f"as passed to the blocks, without padding; T = {gemms.tokens} tokens per micro-batch"
        ),
        rounds=measured,
    )
