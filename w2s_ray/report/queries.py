"""DuckDB queries that recompute a report's numbers from the files of its store."""

from collections.abc import Mapping, Sequence
from typing import Any

from w2s_ray.report.settings import LOSS, UnitKind

Loss = tuple[str, str]
"""Name and parameters of a loss, as ``results`` has them."""
_SEEDS = ("seed", "weak_seed")


def means(file: str, axes: Sequence[str], *, chosen: bool, unit: UnitKind) -> str:
    """Mean accuracies of every setting, the gap recovered, and the median over seeds.

    Args:
        file: of ``results``.
        axes: that a setting has, as of ``settings.Setting``.
        chosen: whether a rule chose among cells.
        unit: what varies; students of one weak model are averaged first where its seed does.
    """
    names = ", ".join(axes)
    roles = [f"{role}_accuracy" for role in ("weak", "student", "ceiling")]
    scores = ", ".join(f"avg({role}) as {role}" for role in roles)
    by_unit = "seed, weak_seed" if unit == "seed" else "weak_key"
    # Over the cells that have all three models.
    complete = "filter (weak_accuracy is not null and ceiling_accuracy is not null)"
    weak, student, ceiling = (f"avg({role}) {complete}" for role in roles)
    cut = "(count(student_accuracy) // 4)"
    middle = f"list_sort(list(student_accuracy))[1 + {cut} : count(student_accuracy) - {cut}]"
    return (
        f"select {names}, {scores}, ({student} - {weak}) / nullif({ceiling} - {weak}, 0) as "
        "gap_recovered, median(student_accuracy) as median_seed, "
        f"list_avg({middle}) as middle_half_of_seeds, sum(cells)::bigint as cells "
        f"from (select {names}, {by_unit}, {scores}, count(*) as cells from '{quoted(file)}' "
        f"where {where_done('', chosen)} group by all) group by all order by all"
    )


def paired(file: str, axes: Sequence[str], baseline: Loss, *, chosen: bool) -> str:
    """Mean differences from the baseline, paired by seeds; arguments as of ``means``."""
    shown = ", ".join(f"a.{name}" for name in axes)
    numbers = ("difference", "labels_from_uniform")
    return (
        f"select {', '.join(axes)}, {', '.join(f'avg({name}) as {name}' for name in numbers)}, "
        f"sum(pairs)::bigint as pairs from (select {shown}, a.weak_key, "
        "avg(a.student_accuracy - b.student_accuracy) as difference, "
        "avg(b.learned_label_confidence) as labels_from_uniform, "
        f"count(*) as pairs from '{quoted(file)}' a join '{quoted(file)}' b on {same_axes(axes)} "
        f"where {against(baseline, chosen)} group by all) group by all order by all"
    )


def same_axes(axes: Sequence[str], changed: Sequence[str] = LOSS) -> str:
    """That two rows a and b have the same axes but for the changed ones, and the same seeds."""
    same = [name for name in (*axes, *_SEEDS) if name not in changed]
    return " and ".join(f"a.{name} is not distinct from b.{name}" for name in same)


def against(baseline: Loss, chosen: bool) -> str:
    """That a is a student of another loss, and b one of the baseline."""
    is_base = " and ".join(
        f"b.{name} = '{quoted(value)}'" for name, value in zip(LOSS, baseline, strict=True)
    )
    return (
        f"a.control = '' and a.key <> b.key and {is_base} "
        f"and {where_done('a.', chosen)} and {where_done('b.', chosen)}"
    )


def treatments(
    file: str, axes: Sequence[str], plain: Sequence[Mapping[str, Any]], *, chosen: bool
) -> str:
    """Mean differences of treatments from the plain way, paired by seeds.

    Args:
        plain: the axes of each treatment, at the values where they do nothing.
    """
    shown = ", ".join(f"a.{name}" for name in axes)
    selects = []
    for values in plain:
        is_plain = " and ".join(
            f"{{0}}.{name} = " + (f"'{quoted(value)}'" if isinstance(value, str) else str(value))
            for name, value in values.items()
        )
        selects.append(
            f"select '{', '.join(values)}' as treatment, {shown}, avg(a.student_accuracy - "
            f"b.student_accuracy) as difference, count(*) as pairs from '{quoted(file)}' a join "
            f"'{quoted(file)}' b on {same_axes(axes, tuple(values))} where a.control = '' and "
            f"not ({is_plain.format('a')}) and {is_plain.format('b')} and "
            f"{where_done('a.', chosen)} and {where_done('b.', chosen)} group by all"
        )
    return " union all ".join(selects) + " order by all"


def curves(root: str, file: str, axes: Sequence[str], *, chosen: bool, bundled: bool) -> str:
    """Mean scores on the validation rows by optimizer step, from the students' artifacts.

    Args:
        root: of the store, with a slash at its end.
        bundled: whether bundles of the study have such scores, with a column ``key``.
    """
    of_folder = "regexp_extract(filename, '-([^-/]+)/(files-[^/]+/)?validation.parquet$', 1)"
    key = f"coalesce(key, {of_folder})" if bundled else of_folder
    return (
        f"with found as (select {key} as own, step, accuracy, weak_agreement, filename from "
        f"read_parquet('{quoted(root)}*/*/**/validation.parquet', filename=true, "
        f"union_by_name=true) where filename not like '{quoted(root)}damaged/%'), "
        "steps as (select distinct on (own, step) own as key, step, accuracy, weak_agreement "
        "from found order by own, step, filename like '%/@%', filename) "
        f"select {', '.join(axes)}, step, avg(accuracy) as accuracy, avg(weak_agreement) as "
        f"weak_agreement, count(*) as seeds from '{quoted(file)}' join steps using (key) where "
        f"control = '' and {where_done('', chosen)} group by all order by all"
    )


def by_rate(file: str, axes: Sequence[str]) -> str:
    """Mean accuracy of every setting at every learning rate, whatever a rule chose."""
    names = dict.fromkeys((*axes, "learning_rate"))
    return (
        f"select {', '.join(names)}, avg(student_accuracy) as student_accuracy from "
        f"'{quoted(file)}' where status = 'done' and control = '' group by all order by all"
    )


def students(file: str) -> str:
    """Gain and misfit of every student."""
    return (
        f"select key, loss, seed, misfit_forward, gain from '{quoted(file)}' "
        "where control = '' and gain is not null order by all"
    )


def deciles(file: str, axes: Sequence[str], *, chosen: bool) -> str:
    """Mean rates of errors by decile of the weak model's confidence; arguments as of ``means``."""
    names = ", ".join(axes)
    rates = ("error_correction", "error_inheritance")
    fields = ", ".join(f'"{name}": "DOUBLE"' for name in ("rows", *rates))
    return (
        f"with bins as (select {names}, key, generate_subscripts(of_bins, 1) as number, "
        f"unnest(of_bins, recursive := true) from (select *, from_json(by_weak_confidence, "
        f"'[{{{fields}}}]') as of_bins from '{quoted(file)}' where control = '' and "
        f"{where_done('', chosen)})), "
        "middles as (select *, sum(rows) over (partition by key order by number) - rows / 2 as "
        "middle, sum(rows) over (partition by key) as total from bins) "
        f"select {names}, least(10, 1 + floor(10 * middle / total))::bigint as decile, "
        + ", ".join(f"avg({rate}) as {rate}" for rate in rates)
        + " from middles group by all order by all"
    )


def cost(file: str) -> str:
    """Sums over students, each of which counts once."""
    return (
        "select strong, trainable, count(*) as students, sum(seconds) as seconds, "
        "sum(tokens) as tokens, sum(flops) as operations from (select distinct strong, trainable, "
        f"key, seconds, tokens, flops from '{quoted(file)}' where status = 'done' and "
        "control = '') group by all order by all"
    )


def steps(root: str, study: str, *, bundled: bool) -> str:
    """Sums over the records of the study's steps, by kind; the last row is of all.

    Args:
        root: of the store, with a slash at its end.
        study: the file with the study's cells.
        bundled: whether the store has bundles.
    """
    members = (
        " union all select kind, key, metrics::json, execution::json, provenance::json, filename "
        f"from read_parquet('{quoted(root)}*/@*/**/members.parquet', filename=true)"
    )
    text = {"kind": "VARCHAR", "key": "VARCHAR"}
    parts = dict.fromkeys(("metrics", "execution", "provenance"), "JSON")
    columns = ", ".join(f"{name}: '{kind}'" for name, kind in (text | parts).items())
    metric = "(metrics->>'{}')::double"
    sums = {"seconds": "seconds", "tokens": "tokens", "operations": "flops"}
    shown = ", ".join(f"sum({metric.format(of)}) as {name}" for name, of in sums.items())
    return (
        f"with cells as (select unnest(cells) as cell from read_json('{quoted(study)}', "
        "columns={cells: 'JSON[]'}, maximum_object_size=4000000000)), "
        "keys as (select distinct unnest(list_concat(json_extract_string(cell, '$.keys.*'), "
        "json_extract_string(cell, '$.tests.*.*'))) as key from cells), "
        "found as (select kind, key, metrics, execution, provenance, filename from "
        f"read_json('{quoted(root)}*/*/record.json', columns={{{columns}}}, filename=true)"
        f"{members if bundled else ''}), "
        "records as (select distinct on (key) * from found semi join keys using (key) "
        "order by key, filename like '%/@%', filename) "
        "select coalesce(kind, 'all') as kind, count(*) as steps, "
        f"{shown}, median({metric.format('seconds')}) as median_seconds, "
        "avg((coalesce((execution->>'fused')::bigint, 1) > 1)::bigint) as fused, "
        "list(distinct metrics->>'device') as devices, list(distinct provenance->>'host') as hosts "
        "from records group by grouping sets ((kind), ()) order by grouping(kind), seconds desc"
    )


def unfinished(file: str, axes: Sequence[str]) -> str:
    """Cells that are not done, or lack a score."""
    return (
        f"select key, {', '.join(axes)}, seed, status, error from '{quoted(file)}' "
        "where status <> 'done' or error is not null order by all"
    )


def where_done(table: str, chosen: bool) -> str:
    """That a row is done and, where a rule chose, chosen."""
    return f"{table}status = 'done'" + (f" and {table}selected" if chosen else "")


def quoted(text: str) -> str:
    """A text within single quotes of SQL."""
    return text.replace("'", "''")
