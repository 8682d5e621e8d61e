"""Row on DPO: pairs/s of a language model on the real pairs, against TRL's ``DPOTrainer``."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import Row, alternate, times_faster
from benchmarks.options import Options
from benchmarks.pairs import BATCH_SIZE, MAX_LENGTH_TOKENS, MODEL, SEED, real_pairs
from benchmarks.sides import Side
from w2s_ray.capacity.execution import Execution
from w2s_ray.catalog.digests import local_path
from w2s_ray.data.batches import epoch_order
from w2s_ray.data.tokens import Tokens
from w2s_ray.models.causal import load_causal
from w2s_ray.models.gguf import unpacked
from w2s_ray.spec.schema import ModelSpec
from w2s_ray.training.engine import Adam
from w2s_ray.training.text_job import Dpo, TextJob

WARMUP = 1
BETA = 0.1
TRL: dict[str, Any] = {"micro_batch": 4, "attention": "eager"}  # as for reward models


def dpo(options: Options) -> Iterator[Row]:
    """One epoch of DPO over as many pairs as there are steps, in fp32 on both sides."""
    steps, rounds = options.size(1, 1), options.rounds
    job = dpo_job(BATCH_SIZE * (WARMUP + steps * rounds), options.execution)
    tokens = _tokens(job)
    file = options.scratch / f"dpo-{len(job.row_ids)}.parquet"
    _write(file, tokens)
    same = {"warmup": WARMUP, "threads": options.threads}
    ours = {"rows": len(job.row_ids), "execution": options.execution}
    theirs = {
        "pairs": str(file),
        "model": str(unpacked(local_path(MODEL["source"]))),
        "batch_size": BATCH_SIZE,
        "beta": BETA,
        **TRL,
    }
    with ExitStack() as stack:
        side = partial(Side, threads=options.threads)
        our = stack.enter_context(side("side_dpo", same | ours))
        other = stack.enter_context(side("side_trl_dpo", same | theirs, python=options.trl_python))
        measured = alternate(
            rounds,
            lambda: float(our.ask(steps=steps)["seconds"]),
            lambda: float(other.ask(steps=steps)["seconds"]),
        )
    trained = BATCH_SIZE * steps
    best = {of: max(trained / entry[of] for entry in measured) for of in ("ours", "other")}
    prompt, answer = tokens.segments[:, 0].mean(), tokens.segments[:, 1:].mean()
    yield Row(
        name="dpo",
        measure="DPO of a language model, pairs/s, real pairs",
        against="TRL DPOTrainer, references computed before",
        values=times_faster(measured),
        target=2.0,
        note=(
            f"{best['ours']:.2f} against {best['other']:.2f} pairs/s at best; {steps} steps of "
            f"{BATCH_SIZE} pairs per round, fp32; mean prompt {prompt:.0f}, answer {answer:.0f} "
            "tokens; the initial model's log-probabilities are made before the first round on both "
            "sides"
        ),
        rounds=measured,
    )


def dpo_job(rows: int, execution: dict[str, Any]) -> TextJob:
    """Full fine-tuning of SmolLM2-135M on the first pairs whose answers differ in their tokens."""
    pairs = real_pairs().slice(0, 2 * rows)
    answers = zip(pairs["answers"].to_pylist(), pairs["label"].to_pylist(), strict=True)
    job = TextJob(
        name="benchmark",
        model=ModelSpec.model_validate(MODEL),
        initial=None,
        row_ids=tuple(pairs["row_id"].to_pylist()),
        prompts=tuple(pairs["prompt"].to_pylist()),
        answers=tuple(tuple(of if label == 1 else of[::-1]) for of, label in answers),
        objective=Dpo(BETA),
        trainable="full",
        lora=None,
        seed=SEED,
        epochs=1,
        batch_size=BATCH_SIZE,
        learning_rate=1e-5,
        schedule="cosine",
        warmup=0.0,
        adam=Adam(),
        max_length_tokens=MAX_LENGTH_TOKENS,
        precision="fp32",
        render="transcript",
        execution=Execution(**execution),
    )
    taken = np.flatnonzero(~_tokens(job).identical)[:rows].tolist()
    parts = (job.row_ids, job.prompts, job.answers)
    row_ids, prompts, chosen_first = (tuple(part[row] for row in taken) for part in parts)
    return replace(job, row_ids=row_ids, prompts=prompts, answers=chosen_first)


def _tokens(job: TextJob) -> Tokens:
    """The job's rows, as its training encodes them."""
    causal = load_causal(job.model, job.precision)
    return job.encoded(causal.tokenizer, causal.end_ids[0])


def _write(file: Path, tokens: Tokens) -> None:
    """The pairs as tokens in the order in which ours trains on them, the chosen answer first."""
    columns: list[list[Any]] = [[], [], []]
    for row in epoch_order(tokens.row_ids, SEED, 0).tolist():
        sizes, begin = tokens.segments[row], int(tokens.starts[row])
        ids = tokens.ids[begin : begin + int(sizes.sum())]
        for column, part in zip(columns, np.split(ids, np.cumsum(sizes)[:-1]), strict=True):
            column.append(part)
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    pq.write_table(pa.table(dict(zip(names, columns, strict=True))), file)
