"""Accuracy and gain on further test sets, from the table ``transfer``."""

from collections.abc import Iterator, Sequence
from statistics import fmean, stdev
from typing import Any

from w2s_ray.report.page import Cell, Table, TableColumn
from w2s_ray.report.sentences import models, shown_value, varying_axes
from w2s_ray.report.settings import Row, Setting, settings_of
from w2s_ray.report.slices import by
from w2s_ray.store.artifacts import Store
from w2s_ray.store.names import transfer_file
from w2s_ray.store.tables import reading_table

_HIDDEN = ("loss", "loss_parameters", "control", "weak", "strong", "chain", "combine")


def transfer_blocks(store: Store, study: str) -> Iterator[Table]:
    """Tables of accuracies and gains with a column for each set; none without such sets."""
    try:
        with reading_table(store, transfer_file(study)) as file:
            rows: list[Row] = file.read().to_pylist()
    except FileNotFoundError:
        return
    by_set = by(rows, lambda row: row["test_set"])
    settings = {name: settings_of(of) for name, of in by_set.items()}
    file_name = store.location(transfer_file(study)).replace("'", "''")
    for score, title, kind in (
        ("student_accuracy", "Student accuracy on further test sets", "percent"),
        ("gain", "Gain over the weak model on further test sets, nats", "number"),
    ):
        yield _table(settings, score, title, kind, file_name)


def _table(
    settings: dict[str, list[Setting]], score: str, title: str, kind: Any, file: str
) -> Table:
    first = [of for found in settings.values() for of in found]
    axes = [name for name in varying_axes([of.axes for of in first]) if name not in _HIDDEN]
    digits = 1 if kind == "percent" else 3
    columns = (
        TableColumn("models"),
        TableColumn("loss"),
        *(TableColumn(name.replace("_", " ")) for name in axes),
        *(TableColumn(name, kind, digits) for name in settings),
        TableColumn("spread between seeds, by set"),
    )
    rows = []
    of_sets = [{found.without(): found for found in of} for of in settings.values()]
    for key, of in {key: of for found in of_sets for key, of in found.items()}.items():
        own = [found[key].rows if key in found else () for found in of_sets]
        rows.append(
            (
                Cell(text=models(of.axes)),
                Cell(text=of.name),
                *(Cell(text=shown_value(name, of.axes[name])) for name in axes),
                *(Cell(_mean(each, score)) for each in own),
                Cell(text=", ".join(_spread(each, score, kind) for each in own)),
            )
        )
    names = ", ".join(first[0].axes)
    query = (
        f"select test_set, {names}, avg({score}) from '{file}' where status = 'done' "
        "and coalesce(selected, true) group by all order by all"
    )
    note = "Means over seeds; the spread is their standard deviation and no interval."
    return Table(f"transfer-{score.replace('_', '-')}", title, columns, tuple(rows), query, (note,))


def _mean(rows: Sequence[Row], score: str) -> float | None:
    values = [row[score] for row in rows if row[score] is not None]
    return fmean(values) if values and len(values) == len(rows) else None


def _spread(rows: Sequence[Row], score: str, kind: Any) -> str:
    values = [row[score] for row in rows if row[score] is not None]
    if len(values) < 2:
        return "–"
    return f"{100 * stdev(values):.1f}" if kind == "percent" else f"{stdev(values):.3f}"
