"""Prompts from JSONL files: rows checked one by one, and their splits.

A row is ``{"prompt": …, "check": {…}, "split": …, "family": …, "topic": …}``, the last three
optional. Either all rows name their split or none does.
"""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from w2s_ray.data.counting import counted
from w2s_ray.data.sources import read_rows
from w2s_ray.errors import InputError
from w2s_ray.foreign.rows import check_columns, check_label, check_texts
from w2s_ray.order import order
from w2s_ray.spec.prompts import SPLITS, Prompts
from w2s_ray.tasks.constraints import Prompt, check_text
from w2s_ray.tasks.families import verify_check

COLUMNS = ("prompt", "check", "split", "family", "topic")


class _Row(NamedTuple):
    """A row of a file: where it is, its prompt, and the split that it names, if any."""

    where: str
    prompt: Prompt
    split: str | None


def prompts_of_files(spec: Prompts) -> Mapping[str, list[Prompt]]:
    """The prompts of each split; equal prompts are in one.

    Raises:
        InputError: a row is wrong or given twice, or the sizes cannot be met.
    """
    rows = list(_rows(spec))
    if not rows:
        raise InputError(f"{', '.join(spec.source)}: no rows, expected prompts")
    _refuse_repeated(rows)
    named = rows[0].split is not None
    for row in rows:
        if (row.split is not None) != named:
            has = "a split" if row.split else "no split"
            raise InputError(
                f"{row.where}: {has}, unlike {rows[0].where}; expected one in all rows or in none"
            )
    return _named_splits(rows, spec) if named else _drawn_splits(rows, spec)


def _rows(spec: Prompts) -> Iterator[_Row]:
    """All rows of the files, each verified."""
    for where, raw in read_rows(spec.source):
        check_columns(raw, where)
        for name in raw:
            if name not in COLUMNS:
                near = get_close_matches(name, COLUMNS, 1)
                hint = f"; did you mean '{near[0]}'?" if near else ""
                expected = ", ".join(COLUMNS)
                raise InputError(f"{where}: column {name[:40]!r}, expected {expected}{hint}")
        prompt = _text(raw, "prompt", where)
        if not prompt.strip():
            raise InputError(f"{where}: prompt {prompt[:40]!r}, expected a text that is not blank")
        check = _check(raw, spec, where)
        named = check.get("family")
        family = _text(raw, "family", where, named if isinstance(named, str) else "")
        check_label(family, where)
        topic = _text(raw, "topic", where, "")
        split = raw.get("split")
        if split is not None and split not in SPLITS:
            raise InputError(f"{where}: split {split!r}, expected {', '.join(SPLITS)}")
        try:
            check_json = check_text(check)
        except ValueError as error:
            raise InputError(f"{where}: check: {error}, expected plain JSON") from None
        yield _Row(where, Prompt(prompt, family, topic, check_json), split)


def _text(raw: Mapping[str, Any], name: str, where: str, default: str | None = None) -> str:
    """A text of a row; ``default``, if there is one, where the row has none."""
    value = raw.get(name)
    if value is None and default is not None:
        value = default
    if not isinstance(value, str):
        given = f"{value!r}"[:80] if name in raw else "none"
        raise InputError(f"{where}: {name}: given {given}, expected a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{where}: {name} {value[:40]!r}: half of a surrogate pair, expected Unicode text"
        ) from None
    check_texts([value], where)
    return value


def _check(raw: Mapping[str, Any], spec: Prompts, where: str) -> Mapping[str, Any]:
    """The check of a row: of a rule family, or whatever the researcher's own checker takes."""
    check = raw.get("check")
    if check is None and spec.checker is not None:
        return {}
    if not isinstance(check, dict):
        given = f"{check!r}"[:80] if "check" in raw else "none"
        hint = "" if spec.checker else " of a rule family, or a checker in the spec"
        raise InputError(f"{where}: check: given {given}, expected an object{hint}")
    if spec.checker is None:
        verify_check(check, where)
    return check


def _refuse_repeated(rows: Sequence[_Row]) -> None:
    """Refuses a second row with the same prompt and check, or one prompt in two splits."""
    first: dict[tuple[str, str], str] = {}
    split: dict[str, _Row] = {}
    for row in rows:
        earlier = first.setdefault((row.prompt.prompt, row.prompt.check), row.where)
        if earlier != row.where:
            raise InputError(
                f"{row.where}: the same prompt and check as in {earlier}, expected each once"
            )
        other = split.setdefault(row.prompt.prompt, row)
        if other.split != row.split and None not in (other.split, row.split):
            raise InputError(
                f"{row.where}: the prompt is in split {row.split}, and in {other.where} in "
                f"{other.split}; expected one split"
            )


def _named_splits(rows: Sequence[_Row], spec: Prompts) -> dict[str, list[Prompt]]:
    """The splits that the rows name, each cut to the upper limit that ``sizes`` gives."""
    if spec.families.train or spec.families.transfer:
        raise InputError(
            f"families: given, but {rows[0].where} names its split; expected families only where "
            "the program splits the rows"
        )
    sizes = spec.sizes.model_dump()
    splits: dict[str, list[Prompt]] = {}
    for split in SPLITS:
        prompts = [row.prompt for row in rows if row.split == split]
        if not prompts and (split != "transfer" or sizes[split]):
            raise InputError(f"{', '.join(spec.source)}: no row of split {split}, expected some")
        splits[split] = _in_order(prompts, spec.seed, split)[: sizes[split]]
    return splits


def _drawn_splits(rows: Sequence[_Row], spec: Prompts) -> dict[str, list[Prompt]]:
    """Splits of exactly ``sizes`` prompts, in an order of hashes; equal prompts are in one.

    Test is filled first, so that larger sizes of align and train do not change it. Rows of the
    families for transfer are in that split or in none.
    """
    sizes = spec.sizes.model_dump()
    if None in (sizes["align"], sizes["train"], sizes["test"]):
        raise InputError(
            f"sizes: expected align, train and test (numbers of prompts), since {rows[0].where} "
            "names no split"
        )
    if sizes["transfer"] and not spec.families.transfer:
        raise InputError(
            f"families: expected those of transfer, since {rows[0].where} names no split"
        )
    _refuse_families(rows, spec)
    kept = spec.families.transfer or ()
    pools = {
        ("transfer",): [row.prompt for row in rows if row.prompt.family in kept],
        ("test", "align", "train"): [row.prompt for row in rows if row.prompt.family not in kept],
    }
    splits: dict[str, list[Prompt]] = {}
    for names, pool in pools.items():
        ordered = _in_order(pool, spec.seed, "splits")
        splits |= _filled(ordered, {name: sizes[name] or 0 for name in names}, spec)
    shared = {p.prompt for p in splits["transfer"]} & {
        p.prompt for split in ("align", "train", "test") for p in splits[split]
    }
    for row in rows:
        if row.prompt.prompt in shared:
            raise InputError(
                f"{row.where}: a prompt with a family for transfer and another one, expected "
                "prompts of their own for transfer"
            )
    return splits


def _refuse_families(rows: Sequence[_Row], spec: Prompts) -> None:
    """Refuses a row whose family the spec does not give, and a given family without rows."""
    train, transfer = spec.families.train, spec.families.transfer or ()
    present = {row.prompt.family for row in rows}
    for family in (*(train or ()), *transfer):
        if family not in present:
            near = get_close_matches(family, present, 1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise InputError(f"families: {family!r}, expected a family of the rows{hint}")
    for row in rows:
        if train is not None and row.prompt.family not in (*train, *transfer):
            given = ", ".join((*train, *transfer))
            raise InputError(
                f"{row.where}: family {row.prompt.family!r}, expected one of those that the spec "
                f"gives ({given})"
            )


def _in_order(prompts: Sequence[Prompt], seed: int, stream: str) -> list[Prompt]:
    """Prompts in an order of hashes that does not depend on the order of the files."""
    ids = [f"{prompt.prompt}\x1f{prompt.check}" for prompt in prompts]
    return [prompts[position] for position in order(ids, seed, stream)]


def _filled(
    prompts: Sequence[Prompt], sizes: Mapping[str, int], spec: Prompts
) -> dict[str, list[Prompt]]:
    """Each group of equal prompts in the first split that has room for all of it."""
    groups: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        groups.setdefault(prompt.prompt, []).append(prompt)
    splits: dict[str, list[Prompt]] = {name: [] for name in sizes}
    for group in groups.values():
        for name, size in sizes.items():
            if len(splits[name]) + len(group) <= size:
                splits[name] += group
                break
    for name, size in sizes.items():
        if len(splits[name]) < size:
            requested = ", ".join(f"{one} {sizes[one]}" for one in sizes)
            raise InputError(
                f"{', '.join(spec.source)}: too few prompts: {counted(len(prompts), 'row')} with "
                f"{counted(len(groups), 'different prompt')} for {requested}; no prompt may be in "
                "two splits"
            )
    return splits
