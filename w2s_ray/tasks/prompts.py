"""The prompts of a study, from a generator or from files: what they are, and their splits."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from w2s_ray.data.sources import fingerprint, read_rows
from w2s_ray.errors import InputError
from w2s_ray.order import hashes
from w2s_ray.spec.prompts import SPLITS, Prompts
from w2s_ray.tasks.check import checker_identity
from w2s_ray.tasks.constraints import VERSION, Prompt, generated
from w2s_ray.tasks.families import obeys

SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("prompt_id", "prompt", "family", "topic", "check")]
)
"""``check`` is JSON."""


def prompts_identity(spec: Prompts) -> dict[str, Any]:
    """What the prepared prompts and their checks depend on, but no paths.

    Raises:
        InputError: a source or the checker cannot be read.
    """
    same: dict[str, Any] = {"sizes": spec.sizes.model_dump(), "seed": spec.seed}
    if spec.is_generated:
        families = {name: getattr(spec, name) for name in ("families", "transfer_families")}
        chosen = {name: list(of) for name, of in families.items() if of is not None}
        return {"source": spec.source[0], "version": VERSION, **same, **chosen}
    content = fingerprint(spec.source)["digest"]
    checker = {} if spec.checker is None else {"checker": checker_identity(spec.checker)}
    return {"content": content, "column": spec.column, "rules": VERSION, **same, **checker}


def prompt_tables(spec: Prompts) -> Mapping[str, pa.Table]:
    """The prompts of each split, in the columns of ``SCHEMA``.

    Raises:
        InputError: a row cannot be used, or there are too few; names file and line.
    """
    of_split = generated(spec) if spec.is_generated else _from_files(spec)
    return {
        split: pa.Table.from_pylist(
            [{**prompt._asdict(), "check": json.dumps(prompt.check)} for prompt in prompts],
            schema=SCHEMA,
        )
        for split, prompts in of_split.items()
    }


def _from_files(spec: Prompts) -> dict[str, list[Prompt]]:
    """Rows whose ``split`` is given are in it; the others are split in an order of hashes."""
    given: dict[str, list[Prompt]] = {split: [] for split in SPLITS}
    free: dict[str, Prompt] = {}
    seen: dict[str, str] = {}
    for place, split, prompt in _rows(spec):
        first = seen.setdefault(prompt.prompt, split)
        if first != split:
            raise InputError(
                f"{place}: given a prompt of the split {split or 'none'} that is in "
                f"{first or 'no split'} too, expected it in one"
            )
        if split:
            given[split].append(prompt)
        else:
            free.setdefault(prompt.prompt, prompt)
    if not free:
        return {split: prompts[: spec.rows(split)] for split, prompts in given.items()}
    texts = list(free)
    order = iter(np.argsort(hashes(texts, spec.seed, "prompts"), kind="stable").tolist())
    for split in SPLITS:
        wanted = spec.rows(split) - len(given[split])
        for _ in range(max(0, wanted)):
            number = next(order, None)
            if number is None:
                raise InputError(
                    f"prompts.sizes: given {sum(spec.sizes.model_dump().values()):,} prompts, "
                    f"expected at most {len(seen):,}, the different prompts of the source",
                    ("prompts", "sizes"),
                )
            given[split].append(free[texts[number]])
        given[split] = given[split][: spec.rows(split)]
    return given


def _rows(spec: Prompts) -> Iterator[tuple[str, str, Prompt]]:
    """Place, split ("" where none is given) and prompt of each row.

    Raises:
        InputError: a row has no text as its prompt, an unknown split, or no check.
    """
    for place, row in read_rows(spec.source):
        text, split, check = row.get(spec.column), row.get("split") or "", row.get("check")
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{place}: {spec.column}: given {text!r:.80}, expected a text")
        if split not in ("", *SPLITS):
            raise InputError(
                f"{place}: split: given {split!r:.80}, expected one of {', '.join(SPLITS)}, or none"
            )
        parsed = _check_of(spec, place, check)
        (number,) = hashes([text, json.dumps(parsed, sort_keys=True)][:1], "prompt_id")
        family = str(row.get("family") or parsed.get("family") or "")
        yield (
            place,
            split,
            Prompt(f"{int(number):016x}", text, family, str(row.get("topic") or ""), parsed),
        )


def _check_of(spec: Prompts, place: str, check: Any) -> dict[str, Any]:
    if isinstance(check, str):
        try:
            check = json.loads(check)
        except ValueError as error:
            raise InputError(f"{place}: check: expected a JSON object: {error}") from None
    if check is None and spec.checker is not None:
        return {}
    if not isinstance(check, dict):
        raise InputError(
            f"{place}: check: given {check!r:.80}, expected a mapping with a family of rules, or "
            "prompts.checker in the spec"
        )
    if spec.checker is None:
        try:
            obeys(check, "a")
        except ValueError as error:
            raise InputError(f"{place}: {error}") from None
    return check
