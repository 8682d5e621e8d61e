"""DuckDB queries that recompute a report's numbers from the files of its store."""

from collections.abc import Sequence

from w2s_ray.report.settings import LOSS

_SEEDS = ("seed", "weak_seed")


def means(file: str, axes: Sequence[str], *, chosen: bool) -> str:
    """Mean accuracies of every setting; students of one weak model are averaged first.

    Args:
        file: of ``results``.
        axes: that a setting has, as of ``settings.Setting``.
        chosen: whether a rule chose among cells.
    """
    scores = ", ".join(
        f"avg({role}_accuracy) as {role}_accuracy" for role in ("weak", "student", "ceiling")
    )
    names = ", ".join(axes)
    return (
        f"select {names}, {scores}, sum(cells) as cells from (select {names}, weak_key, {scores}, "
        f"count(*) as cells from '{_quoted(file)}' where {_where('', chosen)} group by all) "
        "group by all order by all"
    )


def paired(file: str, axes: Sequence[str], baseline: str, parameters: str, *, chosen: bool) -> str:
    """Mean differences from the baseline, paired by seeds; arguments as of ``means``.

    Args:
        parameters: of the baseline's loss, as ``results`` has them.
    """
    same = [name for name in axes if name not in LOSS]
    joined = " and ".join(f"a.{name} is not distinct from b.{name}" for name in (*same, *_SEEDS))
    shown = ", ".join(f"a.{name}" for name in axes)
    of_base = (baseline, parameters)
    is_base = " and ".join(
        f"b.{name} = '{_quoted(value)}'" for name, value in zip(LOSS, of_base, strict=True)
    )
    return (
        f"select {', '.join(axes)}, avg(difference) as difference, sum(pairs) as pairs from "
        f"(select {shown}, a.weak_key, avg(a.student_accuracy - b.student_accuracy) as difference, "
        f"count(*) as pairs from '{_quoted(file)}' a join '{_quoted(file)}' b on {joined} "
        f"where a.control = '' and a.key <> b.key and {is_base} "
        f"and {_where('a.', chosen)} and {_where('b.', chosen)} group by all) "
        "group by all order by all"
    )


def by_rate(file: str, axes: Sequence[str]) -> str:
    """Mean accuracy of every setting at every learning rate, whatever a rule chose."""
    names = dict.fromkeys((*axes, "learning_rate"))
    return (
        f"select {', '.join(names)}, avg(student_accuracy) as student_accuracy from "
        f"'{_quoted(file)}' where status = 'done' and control = '' group by all order by all"
    )


def students(file: str) -> str:
    """Gain and misfit of every student."""
    return (
        f"select key, loss, seed, misfit_forward, gain from '{_quoted(file)}' "
        "where control = '' and gain is not null order by all"
    )


def deciles(file: str) -> str:
    """Rates of errors by decile of the weak model's confidence, as JSON, of every student."""
    return (
        f"select key, loss, seed, by_weak_confidence from '{_quoted(file)}' where control = '' "
        "and status = 'done' order by all"
    )


def cost(file: str) -> str:
    """Sums over students, each of which counts once."""
    return (
        "select strong, trainable, count(*) as students, sum(seconds) as seconds, "
        "sum(tokens) as tokens, sum(flops) as operations from (select distinct strong, trainable, "
        f"key, seconds, tokens, flops from '{_quoted(file)}' where status = 'done' and "
        "control = '') group by all order by all"
    )


def steps(root: str, study: str) -> str:
    """Sums over the records of the study's steps, by kind; the last row is of all.

    Args:
        root: of the store, with a slash at its end.
        study: the file with the study's cells.
    """
    text = {"kind": "VARCHAR", "key": "VARCHAR"}
    parts = dict.fromkeys(("metrics", "execution", "provenance"), "JSON")
    columns = ", ".join(f"{name}: '{kind}'" for name, kind in (text | parts).items())
    metric = "(metrics->>'{}')::double"
    sums = {"seconds": "seconds", "tokens": "tokens", "operations": "flops"}
    shown = ", ".join(f"sum({metric.format(of)}) as {name}" for name, of in sums.items())
    return (
        f"with cells as (select unnest(cells) as cell from read_json('{_quoted(study)}', "
        "columns={cells: 'JSON[]'}, maximum_object_size=4000000000)), "
        "keys as (select distinct unnest(list_concat(json_extract_string(cell, '$.keys.*'), "
        "json_extract_string(cell, '$.tests.*.*'))) as key from cells), "
        f"records as (select distinct on (key) * from read_json('{_quoted(root)}*/*/record.json', "
        f"columns={{{columns}}}, filename=true) semi join keys using (key) "
        "order by key, filename) "
        "select coalesce(kind, 'all') as kind, count(*) as steps, "
        f"{shown}, median({metric.format('seconds')}) as median_seconds, "
        "avg((coalesce((execution->>'fused')::bigint, 1) > 1)::bigint) as fused, "
        "list(distinct metrics->>'device') as devices, list(distinct provenance->>'host') as hosts "
        "from records group by grouping sets ((kind), ()) order by grouping(kind), seconds desc"
    )


def unfinished(file: str) -> str:
    """Cells that are not done, or lack a score."""
    return (
        f"select key, control, loss, seed, status, error from '{_quoted(file)}' "
        "where status <> 'done' or error is not null order by all"
    )


def _where(table: str, chosen: bool) -> str:
    return f"{table}status = 'done'" + (f" and {table}selected" if chosen else "")


def _quoted(text: str) -> str:
    return text.replace("'", "''")
