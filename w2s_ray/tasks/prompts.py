"""The prompts of a study, from a generator or from files: what they are, and their splits."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from w2s_ray.data.sources import fingerprint
from w2s_ray.spec.prompts import Prompts
from w2s_ray.tasks.constraints import PROMPTS_VERSION, generated
from w2s_ray.tasks.prompt_files import ROWS_VERSION, hub_part, prompts_of_files

SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("prompt_id", "prompt", "family", "topic", "check")]
)
"""``check`` is JSON."""


def prompts_identity(spec: Prompts) -> dict[str, Any]:
    """What the prepared prompts depend on, but no paths.

    Raises:
        InputError: a source cannot be read.
    """
    same: dict[str, Any] = {"sizes": spec.sizes.model_dump(), "seed": spec.seed}
    if spec.is_generated:
        families = {name: getattr(spec, name) for name in ("families", "transfer_families")}
        chosen = {name: list(of) for name, of in families.items() if of is not None}
        return {"source": spec.source[0], "version": PROMPTS_VERSION, **same, **chosen}
    content = fingerprint(spec.source, hub_part(spec))["digest"]
    return {
        "content": content,
        "column": spec.column,
        **same,
        "rows": ROWS_VERSION,
    }


def prompt_tables(spec: Prompts) -> Mapping[str, pa.Table]:
    """The prompts of each split, in the columns of ``SCHEMA``.

    Raises:
        InputError: a row cannot be used, or there are too few; names file and line.
    """
    of_split = generated(spec) if spec.is_generated else prompts_of_files(spec)
    return {
        split: pa.Table.from_pylist(
            [{**prompt._asdict(), "check": json.dumps(prompt.check)} for prompt in prompts],
            schema=SCHEMA,
        )
        for split, prompts in of_split.items()
    }
