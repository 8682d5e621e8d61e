"""What a language model is trained on: prompts with one answer each, or with a pair of them."""

from collections.abc import Mapping
from typing import NamedTuple

from w2s_ray.contents import read_parquet
from w2s_ray.steps.prompts import prompts_of
from w2s_ray.steps.samples import is_usable, read_samples
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.names import PAIRS


class Examples(NamedTuple):
    """Prompts, and of each its answers, of a pair the chosen first."""

    row_ids: tuple[str, ...]
    prompts: tuple[str, ...]
    answers: tuple[tuple[str, ...], ...]
    left_out: int = 0


def pairs_of(pairs: Artifact) -> Examples:
    """The pairs of a step ``pairs``."""
    table = read_parquet(pairs.file(PAIRS))
    columns = (table[name].to_pylist() for name in ("chosen", "rejected"))
    return Examples(
        tuple(table["row_id"].to_pylist()),
        tuple(table["prompt"].to_pylist()),
        tuple(zip(*columns, strict=True)),
    )


def answers_of(inputs: Mapping[str, Artifact]) -> Examples:
    """Sampled answers; those without a text, and those that were cut off, are left out.

    Raises:
        ValueError: none remains.
    """
    samples = read_samples(inputs["samples"])
    usable = [sample for sample in samples if is_usable(sample)]
    if not usable:
        raise ValueError(
            f"none of {len(samples):,} samples can be learned from: all are empty or cut off; "
            "raise decoding.max_new_tokens"
        )
    splits = list(dict.fromkeys(sample["split"] for sample in usable))
    table = prompts_of(inputs, splits)
    prompts = dict(zip(table["prompt_id"].to_pylist(), table["prompt"].to_pylist(), strict=True))
    return Examples(
        tuple(f"{sample['prompt_id']}/{sample['sample']}" for sample in usable),
        tuple(prompts[sample["prompt_id"]] for sample in usable),
        tuple((sample["text"],) for sample in usable),
        len(samples) - len(usable),
    )
