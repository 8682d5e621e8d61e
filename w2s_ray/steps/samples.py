"""Rows of sampled answers: what ``generate`` and ``judge`` write, and keep while they run."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from w2s_ray.contents import read_parquet
from w2s_ray.steps.context import Keep
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.names import SAMPLES, VERDICTS

SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("prompt_id", pa.string()),
        ("sample", pa.int32()),
        ("text", pa.string()),
        ("tokens", pa.list_(pa.int32())),
        ("cut_off", pa.bool_()),
        ("log_prob", pa.float32()),
        ("log_prob_reference", pa.float32()),
        ("error", pa.string()),
    ]
)
"""One row per prompt and sample. ``log_prob`` sums over the tokens, the end token among them, under
the model that was sampled from, at temperature 1; ``log_prob_reference`` under the same model
before its training (null where it has none), of a proxy under the strong model alone. ``error``
says why there is no text."""

VERDICT_SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("prompt_id", pa.string()),
        ("sample", pa.int32()),
        ("reward", pa.float64()),
        ("error", pa.string()),
    ]
)
"""One row per sample, in the order of the samples. ``reward`` is from 0 to 1, null where the check
failed or there is no text; ``error`` says why."""


PERPLEXITY_SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("prompt_id", pa.string()),
        ("sample", pa.int32()),
        ("log_prob", pa.float64()),
        ("tokens", pa.int32()),
    ]
)
"""One row per sample, in the order of the samples. ``log_prob`` sums log p over the ``tokens`` of
the text after its prompt, by the tokenizer of the outside model and without an end token; null and
0 where there is no text. The perplexity is exp(-log_prob / tokens)."""


def kept_rows(
    keep: Keep, name: str, schema: pa.Schema, make: Callable[[], list[dict[str, Any]]]
) -> pa.Table:
    """Rows that are kept under a name; made if an earlier try of the step has not left them."""

    def made() -> NDArray[np.uint8]:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, schema) as writer:
            writer.write_table(pa.Table.from_pylist(make(), schema=schema))
        return np.frombuffer(sink.getvalue(), dtype=np.uint8)

    return pa.ipc.open_file(pa.py_buffer(keep(name, made).tobytes())).read_all()


def read_samples(artifact: Artifact) -> list[dict[str, Any]]:
    """The rows of ``SCHEMA``."""
    rows: list[dict[str, Any]] = read_parquet(artifact.file(SAMPLES)).to_pylist()
    return rows


def read_verdicts(artifact: Artifact) -> list[dict[str, Any]]:
    """The rows of ``VERDICT_SCHEMA``."""
    rows: list[dict[str, Any]] = read_parquet(artifact.file(VERDICTS)).to_pylist()
    return rows


def is_usable(sample: dict[str, Any]) -> bool:
    """Whether a model can learn from a sample: it has a text, and it has ended."""
    return sample["error"] is None and not sample["cut_off"] and bool(sample["text"].strip())
