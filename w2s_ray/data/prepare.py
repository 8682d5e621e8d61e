"""From raw rows to the three tables that all steps read, and a report with counts and baselines.

A row's id is a hash of its content, every draw is a hash of (seed, id), and tables are sorted by
id, so names, number and order of the files cannot change a result. Splits made from one source are
disjoint by construction, because whole groups of rows are assigned to a split: rows that share what
their answers cannot change (``contexts``). For given splits the overlap of the same groups is
counted and reported.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from w2s_ray.data import agreement
from w2s_ray.data.class_names import stand_ins
from w2s_ray.data.classification import class_indices
from w2s_ray.data.formats import RawRow
from w2s_ray.data.groups import group_names
from w2s_ray.data.messages import MESSAGES
from w2s_ray.data.read_report import report
from w2s_ray.data.rows import Origin, Row, read_origin
from w2s_ray.data.shortage import none_usable, too_few
from w2s_ray.data.sources import GENERATED, HubPart, note_links, read_rows
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
            (string). Where they are asked for, ``messages`` (list of list of struct role, content)
            has the conversation of each answer.
        report: counts and baselines, as JSON values.
        num_classes: K (preference: 2).
        per_row: m, texts per row (preference: 2, classification: 1).
    """

    tables: dict[str, pa.Table]
    report: dict[str, Any]
    num_classes: int
    per_row: int


def prepare(data: "DataSpec", *, messages: bool = False) -> Prepared:
    """Read, validate, split, limit and sort the rows of a data set.

    Args:
        messages: keep the conversations as messages too, for chat templates.

    Raises:
        InputError: a source cannot be read, a row does not have the format in the spec, or too few
            rows are usable for the requested sizes.
    """
    labels: dict[str, str] = {}
    origins = origins_of(data, labels, messages)
    sizes: dict[str, int | None] = data.sizes.model_dump()
    if data.splits is None:
        exact = {split: size or 0 for split, size in sizes.items()}
        parts = _divide(origins["source"], exact, data)
    else:
        parts = {split: origins[split].rows for split in SPLITS}
        for split, files in data.splits.model_dump().items():
            if not parts[split]:
                raise none_usable(files, origins[split], data)

    classes = class_indices(labels) if data.kind == "classification" else {}
    kept = {split: limited(parts[split], sizes[split], data.seed) for split in SPLITS}
    tables = {split: table_of(kept[split], data.seed, classes) for split in SPLITS}
    rows = {split: list(kept[split].values()) for split in SPLITS}
    described = report(origins, rows, tables, _groups(rows), list(classes))
    return Prepared(tables, described, len(classes) or 2, 1 if classes else 2)


def origins_of(data: "DataSpec", labels: dict[str, str], messages: bool) -> dict[str, Origin]:
    """The rows of the source or of each given split; arguments as of ``read_origin``."""
    part = HubPart(data.subset, data.split, data.revision)
    if data.splits is None:
        assert data.source is not None, "the schema requires splits or a source"
        origins = {"source": read_origin(_source_rows(data, part), data, labels, messages)}
        note_links(data.source, origins["source"].notes)
    else:
        files = data.splits.model_dump()
        origins = {
            split: read_origin(read_rows(files[split], part), data, labels, messages)
            for split in SPLITS
        }
        for split, origin in origins.items():
            note_links(files[split], origin.notes)
    of_origin = [{row.label for row in origin.rows} for origin in origins.values()]
    for label in (unlabelled := stand_ins(labels, of_origin, data.no_label)):
        del labels[label]
    for origin in origins.values():
        origin.remove_unlabelled(unlabelled)
    return origins


def _groups(rows: Mapping[str, list[Row]]) -> dict[str, list[str]]:
    """The name of the group of each row, by split."""
    names = iter(group_names([row.context for split in SPLITS for row in rows[split]]))
    return {split: [next(names) for _ in rows[split]] for split in SPLITS}


def _source_rows(data: "DataSpec", part: HubPart) -> Iterator[tuple[str, RawRow]]:
    source = data.source or ""
    if not source.startswith(GENERATED):
        return read_rows(source, part)
    count = sum(size or 0 for size in data.sizes.model_dump().values())
    rows = agreement.generate(data.seed, count)
    return ((f"{source}: row {number}", dict(row)) for number, row in enumerate(rows, start=1))


def _divide(origin: Origin, sizes: Mapping[str, int], data: "DataSpec") -> dict[str, list[Row]]:
    """Assign whole groups, in hash order, to one split after another until each is full."""
    groups: defaultdict[str, list[Row]] = defaultdict(list)
    for row, name in zip(origin.rows, group_names([r.context for r in origin.rows]), strict=True):
        groups[name].append(row)
    names = list(groups)
    shuffled = iter(order(names, data.seed, "split"))
    parts: dict[str, list[Row]] = {split: [] for split in FILL_ORDER}
    for split, part in parts.items():
        while len(part) < sizes[split]:
            position = next(shuffled, None)
            if position is None:
                raise too_few(origin, groups, {name: sizes[name] for name in SPLITS}, data)
            part += groups[names[position]]
    return parts


def limited(rows: list[Row], size: int | None, seed: int) -> dict[str, Row]:
    """Rows by id, sorted by id; of more than ``size`` rows, those with the lowest hashes."""
    seen: Counter[str] = Counter()
    ids = []
    for row in rows:
        seen[row.content] += 1
        count = seen[row.content]
        ids.append(row.content if count == 1 else f"{row.content}-{count}")
    first = order(ids, seed, "subset")[:size]
    return dict(sorted((ids[position], rows[position]) for position in first))


def table_of(rows: Mapping[str, Row], seed: int, classes: Mapping[str, int]) -> pa.Table:
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
    conversations = [row.messages or [] for row in rows.values()]
    if any(conversations):
        swapped = [not classes and not label for label in labels]
        columns["messages"] = pa.array(
            [of[::-1] if swap else of for swap, of in zip(swapped, conversations, strict=True)],
            MESSAGES,
        )
    return pa.table(columns)
