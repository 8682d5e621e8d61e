"""Prompts from files: rows checked one by one, and their splits.

A row is ``{"prompt": …, "check": {…}, "split": …, "family": …, "topic": …}``, the last three
optional. Rows that name their split are in it; the others fill what is missing.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from w2s_ray.data.sources import HUB, HubPart, read_rows
from w2s_ray.errors import InputError
from w2s_ray.foreign.json_text import parse_json
from w2s_ray.foreign.rows import check_columns, check_label, check_texts
from w2s_ray.order import hashes, order
from w2s_ray.spec.prompts import SPLITS, Prompts
from w2s_ray.tasks.constraints import Prompt
from w2s_ray.tasks.families import obeys

ROWS_VERSION = 1
"""Part of the identity of prompts from files: increase it when they are read or split otherwise."""
_SIZES = ("prompts", "sizes")


class _Row(NamedTuple):
    """A row of a file: where it is, the split that it names ("": none), and its prompt."""

    place: str
    split: str
    prompt: Prompt


def hub_part(spec: Prompts) -> HubPart:
    """What is read of a Hub data set."""
    return HubPart(spec.subset, spec.split, spec.revision)


class PromptsRead(NamedTuple):
    """The prompts of each split, and how many rows of the Hub repeat an earlier one."""

    of_split: dict[str, list[Prompt]]
    repeated: int


def prompts_of_files(spec: Prompts) -> PromptsRead:
    """Prompts in an order of hashes; equal prompts are in one split.

    Of rows of the Hub that repeat a prompt and its check the first is read, since a reader cannot
    mend them; a file that repeats one is refused.

    Raises:
        InputError: a row is wrong or given twice, or a split cannot be filled.
    """
    every = list(_rows(spec))
    rows = _without_repeated(every)
    _refuse_repeated(rows)
    _refuse_unwanted(rows, spec)
    splits = {
        split: _in_order([row.prompt for row in rows if row.split == split], spec, split)
        for split in SPLITS
    }
    free = [row.prompt for row in rows if not row.split]
    if free:
        _fill(splits, _in_order(free, spec, "prompts"), spec)
    for split, prompts in splits.items():
        if spec.rows(split) and not prompts:
            raise InputError(
                f"{', '.join(spec.source)}: given no row of the split {split}, expected at least "
                "one"
            )
    of_split = {split: prompts[: spec.rows(split)] for split, prompts in splits.items()}
    return PromptsRead(of_split, len(every) - len(rows))


def _without_repeated(rows: Sequence[_Row]) -> list[_Row]:
    """The rows without those of the Hub that repeat the prompt and check of an earlier one."""
    seen: set[str] = set()
    kept = []
    for row in rows:
        if not row.place.startswith(HUB) or row.prompt.prompt_id not in seen:
            kept.append(row)
        seen.add(row.prompt.prompt_id)
    return kept


def _fill(splits: dict[str, list[Prompt]], free: Sequence[Prompt], spec: Prompts) -> None:
    """Puts each group of equal prompts into the first split that has room for all of it.

    Raises:
        InputError: a split is not full then.
    """
    groups: dict[str, list[Prompt]] = {}
    for prompt in free:
        groups.setdefault(prompt.prompt, []).append(prompt)
    for group in groups.values():
        for split, prompts in splits.items():
            if len(prompts) + len(group) <= spec.rows(split):
                prompts += group
                break
    for split, prompts in splits.items():
        if len(prompts) < spec.rows(split):
            different = len({p.prompt for of in splits.values() for p in of} | set(groups))
            raise InputError(
                f"prompts.sizes: given {spec.rows(split):,} of {split}, expected at most "
                f"{len(prompts):,} here: the source has {different:,} different prompts, and none "
                "may be in two splits",
                _SIZES,
            )


def _rows(spec: Prompts) -> Iterator[_Row]:
    """All rows of the sources, each verified.

    Raises:
        InputError: a row has no text as its prompt, an unknown split, or no check.
    """
    for place, row in read_rows(spec.source, hub_part(spec)):
        check_columns(row, place)
        text = _text(row, spec.column, place)
        if not text.strip():
            raise InputError(f"{place}: {spec.column}: given {text!r:.80}, expected a text")
        split = _text(row, "split", place, "")
        if split not in ("", *SPLITS):
            raise InputError(
                f"{place}: split: given {split!r:.80}, expected one of {', '.join(SPLITS)}, or none"
            )
        check = _check_of(spec, place, row.get("check"))
        named = check.get("family")
        family = _text(row, "family", place, "") or (named if isinstance(named, str) else "")
        check_label(family, place)
        topic = _text(row, "topic", place, "")
        (number,) = hashes([f"{text}\x1f{json.dumps(check, sort_keys=True)}"], "prompt_id")
        yield _Row(place, split, Prompt(f"{int(number):016x}", text, family, topic, check))


def _text(row: Mapping[str, Any], name: str, place: str, default: str | None = None) -> str:
    """A text of a row; ``default``, if there is one, where the row has none."""
    value = row.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise InputError(f"{place}: {name}: given {value!r:.80}, expected a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{place}: {name}: given {value[:40]!r}, half of a surrogate pair; expected "
            "Unicode text"
        ) from None
    check_texts([value], place)
    return value


def _check_of(spec: Prompts, place: str, check: Any) -> dict[str, Any]:
    """The check of a row: of a rule, or whatever the researcher's own checker takes."""
    if isinstance(check, str):
        try:
            check = parse_json(check, place)
        except json.JSONDecodeError as error:
            raise InputError(f"{place}: check: expected a JSON object: {error}") from None
    if check is None and spec.checker is not None:
        return {}
    if not isinstance(check, dict):
        raise InputError(
            f"{place}: check: given {check!r:.80}, expected a mapping with a family of rules, or "
            "prompts.checker in the spec"
        )
    try:
        json.dumps(check, allow_nan=False)
        if spec.checker is None:
            obeys(check, "a")
    except (ValueError, TypeError) as error:
        raise InputError(f"{place}: check: {error}") from None
    return check


def _refuse_repeated(rows: Sequence[_Row]) -> None:
    """Refuses a second row with the same prompt and check, or one prompt in two splits."""
    ids: dict[str, str] = {}
    first: dict[str, _Row] = {}
    for row in rows:
        earlier = ids.setdefault(row.prompt.prompt_id, row.place)
        if earlier != row.place:
            raise InputError(
                f"{row.place}: given the same prompt and check as in {earlier}, expected each once"
            )
        other = first.setdefault(row.prompt.prompt, row)
        if other.split != row.split:
            raise InputError(
                f"{row.place}: given a prompt of the split {row.split or 'none'} that is in "
                f"{other.split or 'no split'} too ({other.place}), expected it in one"
            )


def _refuse_unwanted(rows: Sequence[_Row], spec: Prompts) -> None:
    """Refuses rows of a split of which the spec has none, instead of dropping them all."""
    for row in rows:
        if row.split and not spec.rows(row.split):
            given = " (none is, where pairs.given has the pairs)" if row.split == "align" else ""
            raise InputError(
                f"prompts.sizes: given {row.split}: 0, expected a number of prompts, since "
                f"{row.place} is of that split{given}",
                _SIZES,
            )


def _in_order(prompts: Sequence[Prompt], spec: Prompts, stream: str) -> list[Prompt]:
    """Prompts in an order of hashes, whatever their order in the files."""
    ids = [prompt.prompt_id for prompt in prompts]
    return [prompts[position] for position in order(ids, spec.seed, stream)]
