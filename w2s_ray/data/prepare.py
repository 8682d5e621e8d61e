"""From raw rows to the three tables that every step reads, and a report of what happened.

A row's id is a hash of its content, every draw is a hash of (seed, id), and tables are sorted by
id: the names, number and order of the files cannot change a result. Splits that we make ourselves
are disjoint by construction, since whole groups of rows with one prompt are dealt out; of splits
that are given, the overlap is counted and reported.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from w2s_ray.data import agreement
from w2s_ray.data.classification import Text, class_indices, read_text
from w2s_ray.data.columns import Unusable
from w2s_ray.data.formats import RawRow
from w2s_ray.data.preference import Pair, read_pair
from w2s_ray.data.sources import GENERATED, HubPart, read_rows
from w2s_ray.errors import InputError
from w2s_ray.order import hashes, order

if TYPE_CHECKING:
    from w2s_ray.spec.schema import DataSpec

SPLITS = ("ground_truth", "weak", "test")
DEALT = ("test", "ground_truth", "weak")
"""Splits in the order in which groups are dealt: more training rows leave the test set as it is."""


@dataclass(frozen=True)
class Prepared:
    """What ``prepare`` gives.

    Attributes:
        tables: by split, columns row_id (string), prompt (string), answers (list of string: A and
            B, or the one text) and label (int64: 1 = A is preferred; or the class index), sorted
            by row_id; generated data also says which ``phenomenon`` (string) a row shows.
        report: counts and baselines, as JSON values.
        num_classes: K (preference: 2).
        per_row: m, texts a row (preference: 2, classification: 1).
    """

    tables: dict[str, pa.Table]
    report: dict[str, Any]
    num_classes: int
    per_row: int


@dataclass(frozen=True, slots=True)
class _Row:
    content: str  # 16 hex digits
    group: str  # 16 hex digits; rows of one group never fall in two splits of ours
    prompt: str
    answers: tuple[str, ...]  # chosen, rejected; or the text
    label: str
    phenomenon: str | None


@dataclass
class _Found:
    """The usable rows of one origin (a given split, or the one source), and the others' number."""

    rows: list[_Row]
    read: int
    unusable: Counter[str]


def prepare(data: "DataSpec") -> Prepared:
    """Reads, checks, splits, limits and orders the rows of a data set.

    Raises:
        InputError: a source cannot be read, a row is not of the form the spec says, or too few
            rows are usable for the sizes asked for.
    """
    part = HubPart(data.subset, data.split, data.revision)
    labels: dict[str, str] = {}
    sizes: dict[str, int | None] = data.sizes.model_dump()
    if data.splits is None:
        assert data.source is not None, "the schema asks for splits or a source"
        exact = {split: size or 0 for split, size in sizes.items()}
        located = _source_rows(data, exact, part)
        found = {"source": _read(located, data, labels)}
        parts = _deal(found["source"], exact, data)
    else:
        places = data.splits.model_dump()
        found = {split: _read(read_rows(places[split], part), data, labels) for split in SPLITS}
        parts = {split: found[split].rows for split in SPLITS}
        for split in SPLITS:
            if not parts[split]:
                raise InputError(f"{', '.join(places[split])}: {_told(found[split])}")

    classes = class_indices(labels) if data.kind == "classification" else {}
    kept = {split: _limited(parts[split], sizes[split], data.seed) for split in SPLITS}
    tables = {split: _table(kept[split], data.seed, classes) for split in SPLITS}
    groups = {split: [row.group for row in kept[split].values()] for split in SPLITS}
    num_classes = len(classes) or 2
    report = {
        "read": {origin: _counts(of) for origin, of in found.items()},
        "splits": {split: _described(tables[split], num_classes) for split in SPLITS},
        "overlap": {} if data.splits is None else _overlaps(groups),
        "shorter_answer_accuracy": None if classes else _shorter_wins(tables["test"]),
        "classes": list(classes),
    }
    return Prepared(tables, report, num_classes, 1 if classes else 2)


def _source_rows(
    data: "DataSpec", sizes: Mapping[str, int], part: HubPart
) -> Iterator[tuple[str, RawRow]]:
    source = data.source or ""
    if not source.startswith(GENERATED):
        return read_rows(source, part)
    rows = agreement.generate(data.seed, sum(sizes.values()))
    return ((f"{source}: row {number}", dict(row)) for number, row in enumerate(rows, start=1))


def _read(
    located: Iterable[tuple[str, RawRow]], data: "DataSpec", labels: dict[str, str]
) -> _Found:
    """Reads one origin; ``labels`` collects every class label and where it was first found."""
    renamed = data.columns.model_dump(exclude_none=True)
    generated = (data.source or "").startswith(GENERATED)
    found = _Found([], 0, Counter())
    for where, raw in located:
        found.read += 1
        parsed: Pair | Text | Unusable
        if data.kind == "classification":
            parsed = read_text(raw, where, renamed)
        else:
            parsed = read_pair(raw, where, renamed, data.format)
        if isinstance(parsed, Unusable):
            found.unusable[parsed.reason] += 1
        elif not _encodes(parsed):
            found.unusable["not valid Unicode"] += 1
        elif isinstance(parsed, Text):
            labels.setdefault(parsed.label, where)
            content, group = _digest(*parsed), _digest(parsed.text)
            found.rows.append(_Row(content, group, "", (parsed.text,), parsed.label, None))
        else:
            answers = (parsed.chosen, parsed.rejected)
            group = _digest(parsed.prompt) if parsed.prompt else _digest(*sorted(answers))
            phenomenon = raw["phenomenon"] if generated else None
            found.rows.append(_Row(_digest(*parsed), group, parsed.prompt, answers, "", phenomenon))
    return found


def _encodes(texts: Iterable[str]) -> bool:
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can spell
        return False
    return True


def _digest(*texts: str) -> str:
    return blake2b(json.dumps(texts).encode(), digest_size=8).hexdigest()


def _told(found: _Found) -> str:
    reasons = "".join(f", {count} {reason}" for reason, count in found.unusable.most_common())
    return f"{len(found.rows)} of {found.read} rows are usable{reasons}"


def _deal(found: _Found, sizes: Mapping[str, int], data: "DataSpec") -> dict[str, list[_Row]]:
    """Whole groups, in hash order, to one split after the other until each has its rows."""
    groups: defaultdict[str, list[_Row]] = defaultdict(list)
    for row in found.rows:
        groups[row.group].append(row)
    names = list(groups)
    shuffled = iter(order(names, data.seed, "split"))
    parts: dict[str, list[_Row]] = {split: [] for split in DEALT}
    for split, part in parts.items():
        while len(part) < sizes[split]:
            place = next(shuffled, None)
            if place is None:
                asked = ", ".join(f"{name} {sizes[name]}" for name in SPLITS)
                raise InputError(
                    f"{data.source}: too few rows: {_told(found)}, with {len(names)} different "
                    f"prompts; sizes ask for {asked} with no prompt in two of them"
                )
            part += groups[names[place]]
    return parts


def _limited(rows: list[_Row], size: int | None, seed: int) -> dict[str, _Row]:
    """Rows by id, in the order of ids; of more than ``size``, those whose hashes come first."""
    seen: Counter[str] = Counter()
    ids = []
    for row in rows:
        seen[row.content] += 1
        count = seen[row.content]
        ids.append(row.content if count == 1 else f"{row.content}-{count}")
    first = order(ids, seed, "subset")[:size]
    return dict(sorted((ids[place], rows[place]) for place in first))


def _table(rows: Mapping[str, _Row], seed: int, classes: Mapping[str, int]) -> pa.Table:
    ids = list(rows)
    if classes:
        labels = np.array([classes[row.label] for row in rows.values()], dtype=np.int64)
        answers = [row.answers for row in rows.values()]
    else:
        labels = (hashes(ids, seed, "A is chosen") & np.uint64(1)).astype(np.int64)
        answers = [
            row.answers if label else row.answers[::-1]
            for label, row in zip(labels, rows.values(), strict=True)
        ]
    columns = {
        "row_id": pa.array(ids, pa.string()),
        "prompt": pa.array([row.prompt for row in rows.values()], pa.string()),
        "answers": pa.array(answers, pa.list_(pa.string())),
        "label": pa.array(labels, pa.int64()),
    }
    phenomena = [row.phenomenon for row in rows.values()]
    if any(phenomena):
        columns["phenomenon"] = pa.array(phenomena, pa.string())
    return pa.table(columns)


def _counts(found: _Found) -> dict[str, Any]:
    return {
        "rows": found.read,
        "usable": len(found.rows),
        "unusable": dict(sorted(found.unusable.items())),
        "duplicates": len(found.rows) - len({row.content for row in found.rows}),
    }


def _described(table: pa.Table, num_classes: int) -> dict[str, Any]:
    """Rows used, the share of each label, and rows with an answer of nothing but spaces."""
    share = np.bincount(table["label"].to_numpy(), minlength=num_classes) / max(1, table.num_rows)
    blank = sum(not all(map(str.strip, answers)) for answers in table["answers"].to_pylist())
    return {"rows": table.num_rows, "label_share": share.tolist(), "blank_answers": blank}


def _overlaps(groups: Mapping[str, list[str]]) -> dict[str, dict[str, Any]]:
    """Prompts that stand in two splits, by pair of splits.

    ``prompts``: different prompts in both; ``rows``: rows of the second split with such a prompt,
    ``share``: the same as a share of the second split. Under ``any``: different prompts found in
    more than one split, and their share of all different prompts.
    """
    told: dict[str, dict[str, Any]] = {}
    for first, second in combinations(SPLITS, 2):
        shared = set(groups[first]) & set(groups[second])
        rows = sum(group in shared for group in groups[second])
        told[f"{first}, {second}"] = {
            "prompts": len(shared),
            "rows": rows,
            "share": rows / len(groups[second]),
        }
    splits_of = Counter(group for split in SPLITS for group in set(groups[split]))
    several = sum(count > 1 for count in splits_of.values())
    told["any"] = {"prompts": several, "share": several / len(splits_of)}
    return told


def _shorter_wins(test: pa.Table) -> float:
    """Accuracy of "the answer with fewer characters is preferred"; a tie is half right."""
    lengths = np.array([[len(answer) for answer in row] for row in test["answers"].to_pylist()])
    a_is_shorter = (np.sign(lengths[:, 1] - lengths[:, 0]) + 1) / 2
    return float(1 - np.mean(np.abs(a_is_shorter - test["label"].to_numpy())))
