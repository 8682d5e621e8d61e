"""The page of one study: its answer, tables and figures, made from the store alone."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from w2s_ray.errors import InputError
from w2s_ray.report import queries
from w2s_ray.report.answer_figures import (
    misfit_figure,
    noise_figure,
    phase_figure,
    rate_figure,
    temperature_figure,
)
from w2s_ray.report.answer_tables import accuracy_table, difference_table, power_table
from w2s_ray.report.answers import Answer, Difference, answer, baseline_of, differences
from w2s_ray.report.page import (
    Block,
    Cell,
    Figure,
    Page,
    Section,
    Table,
    TableColumn,
    Text,
    Warning,
)
from w2s_ray.report.row_scores import row_scores
from w2s_ray.report.sentences import conclusions
from w2s_ray.report.settings import Row, Setting, settings_of
from w2s_ray.store.artifacts import Store
from w2s_ray.store.columns import RESULTS_SCHEMA_VERSION
from w2s_ray.store.names import results_file
from w2s_ray.store.results import read_results, saved_studies

MARGIN = 0.01
"""Difference in accuracy below which two ways are the same in practice, unless a reader says."""


class Choices(NamedTuple):
    """What a reader decides.

    Attributes:
        baseline: the loss to compare with; None: the field's default.
        margin: of equivalence, a fraction.
    """

    baseline: str | None = None
    margin: float = MARGIN


def study_page(store: Store, study: str, choices: Choices) -> Page:
    """The page of a study.

    Raises:
        InputError: the store has no such study, or a table of another version.
    """
    rows = _results(store, study)
    settings = settings_of(rows)
    with row_scores(store, study) as scores:
        answers = [answer(of, scores) for of in settings]
        baseline = choices.baseline or baseline_of(settings)
        found = [] if baseline is None else differences(settings, scores, baseline, choices.margin)
    _check_baseline(choices.baseline, answers)
    ask = _Queries(store.location(results_file(study)), settings, baseline or "")
    sections = (
        _conclusions(answers, found, rows, choices.margin),
        Section(
            "accuracy", "Accuracy", (accuracy_table(answers, controls=False, query=ask.means),)
        ),
        *_comparisons(found, choices.margin, ask),
        *_figures(rows, answers, found, ask),
        *_controls(answers, ask),
        *_unfinished(rows, ask),
        _provenance(rows, store, study),
    )
    return Page(f"Study {study}", _subtitle(rows, answers), sections)


class _Queries:
    """The queries of a page, on its file of results."""

    def __init__(self, file: str, settings: Sequence[Setting], baseline: str) -> None:
        axes = list(settings[0].axes)
        chosen = any(row["selected"] is not None for of in settings for row in of.rows)
        self.means = queries.means(file, axes, chosen=chosen)
        self.paired = queries.paired(file, axes, baseline, chosen=chosen)
        self.by_rate = queries.by_rate(file, axes)
        self.students = queries.students(file)
        self.unfinished = queries.unfinished(file)


def _results(store: Store, study: str) -> list[Row]:
    try:
        rows: list[Row] = read_results(store, study).to_pylist()
    except FileNotFoundError:
        known = ", ".join(saved_studies(store)) or "none"
        raise InputError(
            f"study: given {study!r}, expected one that {store.location('')} has: {known}"
        ) from None
    versions = {row["schema_version"] for row in rows} - {RESULTS_SCHEMA_VERSION}
    if versions:
        raise InputError(
            f"study {study!r}: its results have schema version {versions.pop()}, expected "
            f"{RESULTS_SCHEMA_VERSION}; run the study again, which writes them anew"
        )
    if not rows:
        raise InputError(f"study {study!r}: its results are empty, expected at least one cell")
    return rows


def _check_baseline(baseline: str | None, answers: Sequence[Answer]) -> None:
    losses = list(dict.fromkeys(of.setting.axes["loss"] for of in answers))
    if baseline is not None and baseline not in losses:
        raise InputError(f"--baseline: given {baseline!r}, expected one of {', '.join(losses)}")


def _subtitle(rows: Sequence[Row], answers: Sequence[Answer]) -> str:
    states = Counter(row["status"] for row in rows)
    counted = ", ".join(f"{count:,} {status}" for status, count in sorted(states.items()))
    tested = sorted({of.rows for of in answers if of.rows})
    return f"{len(rows):,} cells ({counted}); test rows: {', '.join(map(str, tested)) or 'none'}"


def _conclusions(
    answers: Sequence[Answer], found: Sequence[Difference], rows: Sequence[Row], margin: float
) -> Section:
    blocks: list[Block] = [Text(text) for text in conclusions(answers, found, rows, margin)]
    missing = sum(row["status"] != "done" for row in rows)
    if missing:
        blocks.insert(
            0,
            Warning(
                f"{missing:,} of {len(rows):,} cells are not done. Settings with missing cells say "
                "so; their means are over fewer seeds than those of others."
            ),
        )
    return Section("answer", "Answer", tuple(blocks))


def _comparisons(found: Sequence[Difference], margin: float, ask: _Queries) -> list[Section]:
    if not found:
        return []
    table = difference_table(found, margin, ask.paired)
    power = power_table(found, ask.paired)
    return [
        Section("differences", "Paired differences", (table,)),
        Section("power", "Power", (power,)),
    ]


def _figures(
    rows: Sequence[Row], answers: Sequence[Answer], found: Sequence[Difference], ask: _Queries
) -> list[Section]:
    made: list[Figure | None] = [
        rate_figure(rows, ask.by_rate),
        noise_figure(answers, ask.means),
        temperature_figure(answers, ask.means),
        phase_figure(found, ask.paired),
        misfit_figure(rows, ask.students),
    ]
    figures = tuple(figure for figure in made if figure is not None)
    return [Section("figures", "Figures", figures)] if figures else []


def _controls(answers: Sequence[Answer], ask: _Queries) -> list[Section]:
    if not any(of.setting.axes["control"] for of in answers):
        return []
    table = accuracy_table(answers, controls=True, query=ask.means)
    return [Section("controls", "Controls", (table,))]


def _unfinished(rows: Sequence[Row], ask: _Queries) -> list[Section]:
    """Cells that failed or are missing, and done ones without all scores; each with its reason."""
    named = [row for row in rows if row["status"] != "done" or row["error"]]
    if not named:
        return []
    table = Table(
        "unfinished",
        "Cells that are not done, or lack a score",
        tuple(TableColumn(title) for title in ("key", "loss", "seed", "status", "reason")),
        tuple(
            tuple(
                Cell(text=str(value))
                for value in (
                    row["key"],
                    row["control"] or row["loss"],
                    row["seed"],
                    row["status"],
                    row["error"] or "not run yet",
                )
            )
            for row in named
        ),
        ask.unfinished,
    )
    return [Section("unfinished", "Failed and missing cells", (table,))]


def _provenance(rows: Sequence[Row], store: Store, study: str) -> Section:
    commits = sorted({row["code_commit"] for row in rows if row["code_commit"]})
    dirty = any(row["code_dirty"] for row in rows)
    seconds = sum(row["seconds"] or 0.0 for row in rows)
    texts = [
        f"Students were trained by code of commit {', '.join(commits) or 'unknown'}"
        + (" with uncommitted changes" if dirty else "")
        + f", in {seconds:,.0f} s of their own steps.",
        f"Made from {store.location(results_file(study))} and the predictions beside it by "
        f"python -m w2s_ray.report {store.location('')} {study}",
    ]
    return Section("provenance", "Provenance", tuple(Text(text) for text in texts))
