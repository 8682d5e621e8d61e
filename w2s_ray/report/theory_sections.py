"""Theory on a study's page: which students it applies to, and how it fared."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from w2s_ray.report.page import Axis, Block, Cell, Figure, Line, Table, TableColumn, Text
from w2s_ray.report.sentences import shown_value, varying_axes
from w2s_ray.report.settings import Row, Setting
from w2s_ray.report.slices import by
from w2s_ray.report.theory_table import outside_reason, theory_table
from w2s_ray.statistics.theory import OUTSIDE
from w2s_ray.store.artifacts import Store
from w2s_ray.store.axis_columns import AXES
from w2s_ray.store.names import results_file, train_predictions_file

_SHOWN = ("loss", "loss_parameters", "seed", "control", "study")


def theory_blocks(store: Store, study: str, rows: Sequence[Row]) -> Iterator[Block]:
    """What theory says of the students that an exact solver has trained, and a figure of them.

    Nothing is read for a study without such students: one sentence says so.

    Args:
        rows: of ``results``.
    """
    students = [row for row in rows if row["status"] == "done" and not row["control"]]
    reasons = Counter(outside_reason(row) for row in students)
    if None not in reasons:
        if students:
            yield Text(f"No statement of theory is about these students: {_counted(reasons)}.")
        return
    try:
        found = theory_table(store, study, rows).to_pylist()
    except FileNotFoundError:
        yield Text("The study keeps no predictions of training rows, which theory is about.")
        return
    measured = [row for row in found if row["gain"] is not None and not row["control"]]
    yield Text(
        "On the rows that each student learned from, with the ceiling as truth F*: the identity of "
        "forward KL, and the slack gain − misfit of Theorem 2, which for heads has a sign and is "
        "not expected to be positive. Of other students theory says nothing."
    )
    query = _query(
        store.location(results_file(study)), store.location(train_predictions_file(study))
    )
    yield _table([row for row in found if not row["control"]], query)
    if measured:
        yield _figure(measured, query)


def _counted(reasons: Counter[str | None]) -> str:
    return "; ".join(f"{why} ({count:,})" for why, count in reasons.items())


def _table(rows: Sequence[Row], query: str) -> Table:
    axes = [axis.name for axis in AXES]
    varying = [
        name
        for name in varying_axes([{of: row[of] for of in axes} for row in rows])
        if name not in _SHOWN
    ]
    columns = (
        TableColumn("loss"),
        *(TableColumn(name.replace("_", " ")) for name in varying),
        TableColumn("seed"),
        TableColumn("result"),
        TableColumn("residual of the identity", "number", 6),
        TableColumn("its tolerance", "number", 6),
        TableColumn("slack of Theorem 2", "number", 4),
        TableColumn("|gain|/√misfit", "number", 3),
        TableColumn("its supremum", "number", 2),
    )
    values = tuple(
        (
            Cell(text=Setting(row, ()).name),
            *(Cell(text=shown_value(name, row[name])) for name in varying),
            Cell(text=str(row["seed"])),
            Cell(text=row["status"] if row["reason"] is None else f"{OUTSIDE}: {row['reason']}"),
            Cell(row["residual"]),
            Cell(row["tolerance"]),
            Cell(row["slack"], row["slack_low"], row["slack_high"]),
            Cell(row["ratio_reverse"]),
            Cell(row["largest_ratio"]),
        )
        for row in rows
    )
    notes = (
        "Nats. Residuals are of logits stored as float16; the tolerance allows for that. The "
        "interval of the slack is over rows, for the student as it is, and none is adjusted for "
        "their number. |gain|/√misfit is of the reverse misfit for every loss.",
    )
    return Table("theory", "Theory on training rows", columns, values, query, notes)


def _figure(rows: Sequence[Row], query: str) -> Figure:
    lines = tuple(
        Line(loss, [row["misfit_reverse"] for row in own], [row["gain"] for row in own])
        for loss, own in by(rows, lambda row: Setting(row, ()).name).items()
    )
    return Figure(
        "gain-by-misfit-on-training-rows",
        "Gain against reverse misfit on the rows that students learned from, with the ceiling as "
        "truth; the line is the bound of Theorem 2, gain = misfit. Weak labels and students are "
        "clipped.",
        "scatter",
        Axis("reverse misfit, nats"),
        Axis("gain, nats"),
        lines,
        f"{len(rows)} students of {len(lines)} losses.",
        query,
    )


def _query(results: str, trained: str) -> str:
    """Residual, slack, gain and misfits of every student, from logits and labels."""
    results, trained = (name.replace("'", "''") for name in (results, trained))
    each = "list_sum(list_transform(range(1, len(w) + 1), lambda k: {}))"
    clipped = "list_transform({0}, lambda p: greatest(r.label_clip, least(1 - r.label_clip, p)))"
    normal = "list_transform({0}, lambda p: p / list_sum({0}))"
    means: dict[str, Any] = {
        "residual": "(w[k] - exp(s[k])) * (s[k] - f[k])",
        "slack": "(exp(f[k]) - exp(s[k])) * (s[k] - ln(wc[k]))",
        "gain": "exp(f[k]) * ln(sc[k] / wc[k])",
        "misfit_forward": "wc[k] * ln(wc[k] / sc[k])",
        "misfit_reverse": "sc[k] * ln(sc[k] / wc[k])",
    }
    shown = ", ".join(f"avg({each.format(term)}) as {name}" for name, term in means.items())
    return (
        "with logs as (select key, row_id, soft_label, list_transform(logits, lambda z: "
        "z::double - ln(list_sum(list_transform(logits, lambda y: exp(y::double))))) as logs "
        f"from '{trained}' where model_role <> 'weak'), "
        "models as (select r.key, r.loss, r.seed, s.logs as s, c.logs as f, "
        f"{normal.format('s.soft_label::double[]')} as w, "
        f"{clipped.format('s.soft_label::double[]')} as raw_w, "
        f"{clipped.format('list_transform(s.logs, lambda z: exp(z))')} as raw_s "
        f"from (select distinct key, ceiling_key, loss, seed, label_clip, control from '{results}')"
        " r join logs s on s.key = r.key join logs c on c.key = r.ceiling_key and "
        "c.row_id = s.row_id where r.control = ''), "
        f"clipped as (select *, {normal.format('raw_w')} as wc, {normal.format('raw_s')} as sc "
        f"from models) select key, loss, seed, {shown} from clipped group by all order by all"
    )
