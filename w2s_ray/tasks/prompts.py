"""The prompts of a study, from a generator or from files: what they are, and their splits."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from w2s_ray.data.sources import fingerprint
from w2s_ray.spec.prompts import SPLITS, Prompts
from w2s_ray.tasks.beginnings import prompts_of_beginnings, texts_identity
from w2s_ray.tasks.constraints import PROMPTS_VERSION, generated
from w2s_ray.tasks.prompt_files import ROWS_VERSION, PromptsRead, hub_part, prompts_of_files

SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("prompt_id", "prompt", "family", "topic", "check")]
)
"""``check`` is JSON."""
REPEATED = "repeated"


def prompts_identity(spec: Prompts, split: str) -> dict[str, Any]:
    """What the prompts of a split depend on, but no paths.

    More prompts of a split leave those before it as they are (``SPLITS``), and generated test
    prompts depend on no other split, so what was trained stays where only tests are added.

    Raises:
        InputError: a source cannot be read.
    """
    number = SPLITS.index(split)
    if spec.classifier is not None:
        sizes = {name: spec.rows(name) for name in SPLITS[: number + 1]}
        return {
            **texts_identity(spec),
            "words": spec.classifier.words,
            "split": split,
            "sizes": sizes,
        }
    if not spec.is_generated:
        sizes = {name: spec.rows(name) for name in SPLITS[: number + 1]}
        content = fingerprint(spec.source, hub_part(spec))["digest"]
        same = {"content": content, "column": spec.column, "rows": ROWS_VERSION}
        return {**same, "split": split, "sizes": sizes, "seed": spec.seed}
    before = ("align", "train") if split == "train" else (split,)
    families = spec.transfer_families if split == "transfer" else spec.families
    return {
        "source": spec.source[0],
        "version": PROMPTS_VERSION,
        "split": split,
        "sizes": {name: spec.rows(name) for name in before},
        "seed": spec.seed,
        "families": None if families is None else list(families),
    }


def prompt_tables(spec: Prompts) -> Mapping[str, pa.Table]:
    """The prompts of each split, in the columns of ``SCHEMA``.

    ``REPEATED`` among the metadata is how many rows of the source repeat an earlier one.

    Raises:
        InputError: a row cannot be used, or there are too few; names file and line.
    """
    if spec.classifier is not None:
        read = PromptsRead(prompts_of_beginnings(spec), 0)
    else:
        read = PromptsRead(generated(spec), 0) if spec.is_generated else prompts_of_files(spec)
    schema = SCHEMA.with_metadata({REPEATED: str(read.repeated)})
    return {
        split: pa.Table.from_pylist(
            [{**prompt._asdict(), "check": json.dumps(prompt.check)} for prompt in prompts],
            schema=schema,
        )
        for split, prompts in read.of_split.items()
    }
