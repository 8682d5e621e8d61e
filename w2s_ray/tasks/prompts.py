"""The four tables of prompts of a spec, and what they depend on."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import pyarrow as pa

from w2s_ray.data.sources import fingerprint
from w2s_ray.spec.prompts import SPLITS, Prompts
from w2s_ray.tasks import constraints
from w2s_ray.tasks.check import checker_identity
from w2s_ray.tasks.constraints import Prompt, families_of
from w2s_ray.tasks.prompt_files import prompts_of_files

SCHEMA = pa.schema(
    [
        pa.field(name, pa.string(), nullable=False)
        for name in ("prompt_id", "prompt", "family", "topic", "check")
    ]
)


def prompt_tables(spec: Prompts) -> Mapping[str, pa.Table]:
    """The prompts of each split, with the columns of ``SCHEMA``; ``check`` is JSON.

    Returns:
        A table for each of ``spec.prompts.SPLITS``, without rows where there are none.

    Raises:
        InputError: a row of a file is wrong, or a split cannot be filled.
    """
    splits = prompts_of_files(spec) if spec.generator is None else constraints.generated(spec)
    return {split: _table(splits[split]) for split in SPLITS}


def prompts_identity(spec: Prompts) -> dict[str, Any]:
    """What prompts and verdicts depend on, but no paths: for keys.

    Raises:
        InputError: a file cannot be read, or the checker cannot be imported.
    """
    return {**tables_identity(spec), "checker": checker_identity(spec)}


def tables_identity(spec: Prompts) -> dict[str, Any]:
    """What ``prompt_tables`` depends on.

    Raises:
        InputError: a file cannot be read.
    """
    sizes = spec.sizes.model_dump()
    if spec.generator is not None:
        families = families_of(spec)._asdict()
        return {
            "source": spec.source[0],
            "version": constraints.VERSION,
            "sizes": {**sizes, "transfer": sizes["transfer"] or 0},
            "families": {name: list(value) for name, value in families.items()},
            "seed": spec.seed,
        }
    return {
        "content": fingerprint(spec.source)["digest"],
        "sizes": sizes,
        "families": spec.families.model_dump(mode="json"),
        "seed": spec.seed,
        "has_checker": spec.checker is not None,
    }


def prompt_id(prompt: Prompt) -> str:
    """A hash of the message and its check, so equal ones have one id in every table."""
    text = f"{prompt.prompt}\x1f{prompt.check}"
    return blake2b(text.encode(), digest_size=10).hexdigest()


def _table(prompts: Sequence[Prompt]) -> pa.Table:
    rows = [{"prompt_id": prompt_id(prompt), **prompt._asdict()} for prompt in prompts]
    return pa.Table.from_pylist(rows, schema=SCHEMA)
