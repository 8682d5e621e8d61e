"""From raw rows to the three tables that all steps read, and a report with counts and baselines.

A row's id is a hash of its content, every draw is a hash of (seed, id), and tables are sorted by
id, so names, number and order of the files cannot change a result. Splits made from one source are
disjoint by construction, because whole groups of rows with the same prompt are assigned to a split;
for given splits the overlap is counted and reported.
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
FILL_ORDER = ("test", "ground_truth", "weak")
"""Order in which splits are filled: with more training rows the test set stays the same."""


@dataclass(frozen=True)
class Prepared:
    """A prepared data set.

    Attributes:
        tables: one per split, sorted by row_id, with columns row_id (string), prompt (string),
            answers (list of string: A and B, or the one text) and label (int64: 1 if A is
            preferred, else 0; or the class index). Generated data also has a column ``phenomenon``
            (string).
        report: counts and baselines, as JSON values.
        num_classes: K (preference: 2).
        per_row: m, texts per row (preference: 2, classification: 1).
    """

    tables: dict[str, pa.Table]
    report: dict[str, Any]
    num_classes: int
    per_row: int


@dataclass(frozen=True, slots=True)
class _Row:
    """A usable row.

    Attributes:
        content: hash of all its texts, 16 hex digits.
        group: hash of its prompt, 16 hex digits; a group is never divided between splits.
        prompt: empty if there is none.
        answers: chosen and rejected, or the one text.
        label: name of the class; empty for preference pairs.
        phenomenon: for generated rows.
    """

    content: str
    group: str
    prompt: str
    answers: tuple[str, ...]
    label: str
    phenomenon: str | None


@dataclass
class _Origin:
    """The rows of one origin, which is a given split or the one source.

    Attributes:
        rows: the usable ones.
        read: how many there are in all.
        unusable: how many are unusable, by reason.
        notes: how many of the rows have a peculiarity that a reader must know, by peculiarity.
    """

    rows: list[_Row]
    read: int
    unusable: Counter[str]
    notes: Counter[str]

    def summary(self) -> str:
        """The counts as text, for messages."""
        reasons = "".join(f", {count} {reason}" for reason, count in self.unusable.most_common())
        return f"{len(self.rows)} of {self.read} rows are usable{reasons}"


def prepare(data: "DataSpec") -> Prepared:
    """Read, validate, split, limit and sort the rows of a data set.

    Raises:
        InputError: a source cannot be read, a row does not have the format in the spec, or too few
            rows are usable for the requested sizes.
    """
    part = HubPart(data.subset, data.split, data.revision)
    labels: dict[str, str] = {}
    sizes: dict[str, int | None] = data.sizes.model_dump()
    if data.splits is None:
        assert data.source is not None, "the schema requires splits or a source"
        exact = {split: size or 0 for split, size in sizes.items()}
        located = _source_rows(data, exact, part)
        origins = {"source": _read(located, data, labels)}
        parts = _divide(origins["source"], exact, data)
    else:
        files = data.splits.model_dump()
        origins = {split: _read(read_rows(files[split], part), data, labels) for split in SPLITS}
        parts = {split: origins[split].rows for split in SPLITS}
        for split in SPLITS:
            if not parts[split]:
                raise InputError(f"{', '.join(files[split])}: {origins[split].summary()}")

    classes = class_indices(labels) if data.kind == "classification" else {}
    kept = {split: _limited(parts[split], sizes[split], data.seed) for split in SPLITS}
    tables = {split: _table(kept[split], data.seed, classes) for split in SPLITS}
    groups = {split: [row.group for row in kept[split].values()] for split in SPLITS}
    num_classes = len(classes) or 2
    report = {
        "read": {name: _counts(origin) for name, origin in origins.items()},
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
) -> _Origin:
    """Read one origin; add each new class label to ``labels`` with the file and line it is in."""
    renamed = data.columns.model_dump(exclude_none=True)
    generated = (data.source or "").startswith(GENERATED)
    origin = _Origin([], 0, Counter(), Counter())
    notes = Counter[str]() if generated else origin.notes
    for where, raw in located:
        origin.read += 1
        parsed: Pair | Text | Unusable
        if data.kind == "classification":
            parsed = read_text(raw, where, renamed, notes)
        else:
            parsed = read_pair(raw, where, renamed, data.format, notes)
        if isinstance(parsed, Unusable):
            origin.unusable[parsed.reason] += 1
        elif not _encodes(parsed):
            origin.unusable["not valid Unicode"] += 1
        elif isinstance(parsed, Text):
            labels.setdefault(parsed.label, where)
            content, group = _digest(*parsed), _digest(parsed.text)
            origin.rows.append(_Row(content, group, "", (parsed.text,), parsed.label, None))
        else:
            answers = (parsed.chosen, parsed.rejected)
            group = _digest(parsed.prompt) if parsed.prompt else _digest(*sorted(answers))
            phenomenon = raw["phenomenon"] if generated else None
            origin.rows.append(
                _Row(_digest(*parsed), group, parsed.prompt, answers, "", phenomenon)
            )
    return origin


def _encodes(texts: Iterable[str]) -> bool:
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can express
        return False
    return True


def _digest(*texts: str) -> str:
    return blake2b(json.dumps(texts).encode(), digest_size=8).hexdigest()


def _divide(origin: _Origin, sizes: Mapping[str, int], data: "DataSpec") -> dict[str, list[_Row]]:
    """Assign whole groups, in hash order, to one split after another until each is full."""
    groups: defaultdict[str, list[_Row]] = defaultdict(list)
    for row in origin.rows:
        groups[row.group].append(row)
    names = list(groups)
    shuffled = iter(order(names, data.seed, "split"))
    parts: dict[str, list[_Row]] = {split: [] for split in FILL_ORDER}
    for split, part in parts.items():
        while len(part) < sizes[split]:
            position = next(shuffled, None)
            if position is None:
                requested = ", ".join(f"{name} {sizes[name]}" for name in SPLITS)
                raise InputError(
                    f"{data.source}: too few rows: {origin.summary()}, with {len(names)} different "
                    f"prompts; sizes require {requested}, and no prompt may be in two splits"
                )
            part += groups[names[position]]
    return parts


def _limited(rows: list[_Row], size: int | None, seed: int) -> dict[str, _Row]:
    """Rows by id, sorted by id; of more than ``size`` rows, those with the lowest hashes."""
    seen: Counter[str] = Counter()
    ids = []
    for row in rows:
        seen[row.content] += 1
        count = seen[row.content]
        ids.append(row.content if count == 1 else f"{row.content}-{count}")
    first = order(ids, seed, "subset")[:size]
    return dict(sorted((ids[position], rows[position]) for position in first))


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


def _counts(origin: _Origin) -> dict[str, Any]:
    return {
        "rows": origin.read,
        "usable": len(origin.rows),
        "unusable": dict(sorted(origin.unusable.items())),
        "notes": dict(sorted(origin.notes.items())),
        "duplicates": len(origin.rows) - len({row.content for row in origin.rows}),
    }


def _described(table: pa.Table, num_classes: int) -> dict[str, Any]:
    """Number of rows, the share of each label, and rows with a blank answer."""
    share = np.bincount(table["label"].to_numpy(), minlength=num_classes) / max(1, table.num_rows)
    blank = sum(not all(map(str.strip, answers)) for answers in table["answers"].to_pylist())
    return {"rows": table.num_rows, "label_share": share.tolist(), "blank_answers": blank}


def _overlaps(groups: Mapping[str, list[str]]) -> dict[str, dict[str, Any]]:
    """Prompts that are in two splits, by pair of splits.

    ``prompts`` counts distinct prompts in both, ``rows`` the rows of the second split with such a
    prompt, and ``share`` is their fraction of the second split. ``any`` has the distinct prompts
    in more than one split, and their fraction of all distinct prompts.
    """
    overlaps: dict[str, dict[str, Any]] = {}
    for first, second in combinations(SPLITS, 2):
        shared = set(groups[first]) & set(groups[second])
        rows = sum(group in shared for group in groups[second])
        overlaps[f"{first}, {second}"] = {
            "prompts": len(shared),
            "rows": rows,
            "share": rows / len(groups[second]),
        }
    splits_of = Counter(group for split in SPLITS for group in set(groups[split]))
    several = sum(count > 1 for count in splits_of.values())
    overlaps["any"] = {"prompts": several, "share": several / len(splits_of)}
    return overlaps


def _shorter_wins(test: pa.Table) -> float:
    """Accuracy of preferring the answer with fewer characters; a tie counts as half."""
    lengths = np.array([[len(answer) for answer in row] for row in test["answers"].to_pylist()])
    a_is_shorter = (np.sign(lengths[:, 1] - lengths[:, 0]) + 1) / 2
    return float(1 - np.mean(np.abs(a_is_shorter - test["label"].to_numpy())))
