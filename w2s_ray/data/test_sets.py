"""Further test sets of a data set: rows read as its own, and which of them models trained on."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from w2s_ray.data.class_names import MISSING, NUMBERS
from w2s_ray.data.groups import group_names
from w2s_ray.data.prepare import Prepared, limited, origins_of, table_of
from w2s_ray.data.read_report import report, texts_of
from w2s_ray.data.rows import Origin, Row, read_origin
from w2s_ray.data.shortage import none_usable
from w2s_ray.data.sources import HubPart, note_links, read_rows
from w2s_ray.errors import InputError
from w2s_ray.spec.messages import nearest

if TYPE_CHECKING:
    from w2s_ray.spec.schema import DataSpec

TRAINED_ON = ("ground_truth", "weak")
"""Splits whose rows models are trained on."""


def as_data(data: "DataSpec", name: str) -> "DataSpec":
    """The further test set ``name`` as a data set: its source, and how its rows are read.

    What it does not say is as in ``data``; revision and configuration of a Hub data set only where
    the source is one of ``data`` too. Its one size is that of the split ``test``.
    """
    from w2s_ray.spec.inputs import Columns, Sizes, Splits

    test = data.tests[name]
    same_source = set(test.source) <= set(data.locations)
    columns = {**data.columns.model_dump(), **test.columns.model_dump(exclude_unset=True)}
    splits = Splits.model_construct(ground_truth=(), weak=(), test=test.source)
    changes: dict[str, Any] = {
        "splits": splits,
        "source": None,
        "sizes": Sizes(test=test.rows),
        "format": test.format or data.format,
        "columns": Columns(**columns),
        "revision": test.revision or (data.revision if same_source else None),
        "subset": test.subset or (data.subset if same_source else None),
        "split": test.split or data.split,
        "tests": {},
    }
    return data.model_copy(update=changes)


def prepare_test_set(
    test: "DataSpec",
    data: "DataSpec",
    classes: Sequence[str],
    trained: Mapping[str, Sequence[str]],
    *,
    messages: bool = False,
) -> Prepared:
    """Read, validate, limit and sort the rows of a further test set: one table, ``test``.

    Args:
        test: of ``as_data``.
        data: the data set that the models are trained on.
        classes: its classes in the order of their indices; empty for pairs.
        trained: split → ids of the rows that models are trained on.
        messages: keep the conversations as messages too, for chat templates.

    Raises:
        InputError: a source cannot be read, no row is usable, a class is none of ``classes``, or
            models are trained on every row.
    """
    assert test.splits is not None
    labels: dict[str, str] = {}
    part = HubPart(test.subset, test.split, test.revision)
    origin = read_origin(read_rows(test.splits.test, part), test, labels, messages)
    note_links(test.splits.test, origin.notes)
    if data.kind == "classification":
        _check_classes(origin, labels, classes, data.no_label)
    if not origin.rows:
        raise none_usable(test.splits.test, origin, test)
    kept = limited(origin.rows, test.sizes.test, test.seed)
    table = table_of(kept, test.seed, {name: index for index, name in enumerate(classes)})
    rows = list(kept.values())
    groups = group_names([row.context for row in rows])
    described = report(
        {"test": origin}, {"test": rows}, {"test": table}, {"test": groups}, list(classes)
    )
    described["trained_on"] = trained_on = _trained_on(rows, data, trained)
    if trained_on["rows"] == len(rows):
        raise InputError(
            f"{', '.join(test.splits.test)}: given {len(rows):,} rows, expected some that no model "
            "is trained on: all of them, or others of their prompts, are in ground_truth or weak"
        )
    return Prepared({"test": table}, described, len(classes) or 2, 1 if classes else 2)


def _check_classes(
    origin: Origin,
    labels: Mapping[str, str],
    classes: Sequence[str],
    no_label: tuple[str, ...] | None,
) -> None:
    """Counts rows without a label as unusable; refuses a class that the data set does not have."""
    stand_ins = MISSING | NUMBERS if no_label is None else frozenset(no_label)
    unknown = sorted(labels.keys() - set(classes))
    for label in unknown:
        if label not in stand_ins:
            raise InputError(
                f"{labels[label]}: label '{label}', expected one of the data set's classes: "
                f"{', '.join(classes)}{nearest(label, classes)}"
            )
    origin.remove_unlabelled(unknown)


class _Seen(NamedTuple):
    """What a split that is trained on holds: contents of rows, whole texts, contexts."""

    contents: frozenset[str]
    texts: frozenset[str]
    groups: frozenset[str]


def _trained_on(
    rows: Sequence[Row], data: "DataSpec", trained: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """How many test rows models are trained on, in all (``rows``) and by split.

    Of each split: ``rows`` that are in it, rows with a whole ``texts`` of it (prompt and answer),
    and rows whose ``groups`` (prompt, conversation or text) has a row there.
    """
    by_content = {
        row.content: row for of in origins_of(data, {}, False).values() for row in of.rows
    }
    present = {
        split: [by_content[content] for content in dict.fromkeys(map(_content, ids))]
        for split, ids in trained.items()
    }
    contexts = [row.context for row in rows]
    for of_split in present.values():
        contexts += [row.context for row in of_split]
    names = iter(group_names(contexts))
    groups = [next(names) for _ in rows]
    counts: dict[str, Any] = {}
    any_of = [False] * len(rows)
    for split, of_split in present.items():
        seen = _Seen(
            frozenset(row.content for row in of_split),
            frozenset().union(*map(texts_of, of_split)),
            frozenset(next(names) for _ in of_split),
        )
        same = [row.content in seen.contents for row in rows]
        texts = [not texts_of(row).isdisjoint(seen.texts) for row in rows]
        grouped = [group in seen.groups for group in groups]
        counts[split] = {"rows": sum(same), "texts": sum(texts), "groups": sum(grouped)}
        found = zip(any_of, same, texts, grouped, strict=True)
        any_of = [any(each) for each in found]
    return {"rows": sum(any_of), **counts}


def _content(row_id: str) -> str:
    """The content that an id names, without the number of a repeated row."""
    return row_id.partition("-")[0]
