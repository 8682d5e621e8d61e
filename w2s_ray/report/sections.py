"""The sections of a study's page, in their order; one that has nothing to say is left out."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from w2s_ray.report import queries
from w2s_ray.report.answer_figures import axis_figures, misfit_figure, phase_figure, rate_figure
from w2s_ray.report.answer_tables import (
    accuracy_table,
    axes_of,
    difference_table,
    power_table,
    treatment_table,
)
from w2s_ray.report.answers import TREATMENTS, Answer, Difference, has
from w2s_ray.report.cost_tables import StepCost, step_cost_table, student_cost_table
from w2s_ray.report.curve_figures import curve_figures
from w2s_ray.report.error_figures import decile_figure, reliability_figures
from w2s_ray.report.page import Block, Cell, Figure, Section, Table, TableColumn, Text, Warning
from w2s_ray.report.pair_figures import gap_figure, size_figure
from w2s_ray.report.published_table import published_table
from w2s_ray.report.row_queries import RowQueries
from w2s_ray.report.row_scores import RowScores
from w2s_ray.report.sentences import conclusions, shown_value
from w2s_ray.report.settings import Row, Setting, UnitKind, units
from w2s_ray.report.theory_sections import theory_blocks
from w2s_ray.report.transfer_sections import transfer_blocks
from w2s_ray.store.artifacts import Store
from w2s_ray.store.names import VALIDATION, predictions_file, results_file, study_file
from w2s_ray.store.records import holds
from w2s_ray.store.results import Records


class Queries:
    """The queries of a page, on the files of its store."""

    def __init__(
        self,
        store: Store,
        study: str,
        settings: Sequence[Setting],
        baseline: tuple[str, str],
        records: Records,
    ) -> None:
        file, root = store.location(results_file(study)), store.location("")
        axes, bundled = list(settings[0].axes), store.has_bundles()
        with_scores = any(
            "bundle" in record and holds(record, VALIDATION) for record in records.values()
        )
        chosen = any(row["selected"] is not None for of in settings for row in of.rows)
        crossed = any(units(of.done)[0] == "weak seed" for of in settings)
        unit: UnitKind = "weak seed" if crossed else "seed"
        rows = RowQueries(file, store.location(predictions_file(study)), axes, chosen)
        plain = [of for of in TREATMENTS if any(not has(setting, of) for setting in settings)]
        self.means = queries.means(file, axes, chosen=chosen, unit=unit)
        self.paired = queries.paired(file, axes, baseline, chosen=chosen)
        self.treatments = queries.treatments(file, axes, plain, chosen=chosen)
        self.components = rows.components(baseline, unit)
        self.by_rate = queries.by_rate(file, axes)
        self.by_step = queries.curves(root, file, axes, chosen=chosen, bundled=with_scores)
        self.students = queries.students(file)
        self.unfinished = queries.unfinished(file, axes)
        self.deciles = queries.deciles(file, axes, chosen=chosen)
        self.reliability, self.recalibrated = rows.reliability(), rows.recalibrated()
        self.cost = queries.cost(file)
        self.steps = queries.steps(root, store.location(study_file(study)), bundled=bundled)


@dataclass(frozen=True)
class Material:
    """What sections are made of.

    Attributes:
        rows: of ``results``.
        warnings: what a reader must know first.
        baseline: the loss that others are compared with.
        margin: of equivalence.
        costs: of the steps that have a record.
        steps: number of all steps of the study's cells.
    """

    store: Store
    study: str
    rows: Sequence[Row]
    warnings: Sequence[str]
    answers: Sequence[Answer]
    differences: Sequence[Difference]
    treatments: Sequence[Difference]
    baseline: str | None
    margin: float
    scores: RowScores
    costs: Sequence[StepCost]
    steps: int
    ask: Queries


def _answer(of: Material) -> Section:
    texts = conclusions(of.answers, of.differences, of.rows, of.margin)
    blocks: list[Block] = [*map(Warning, of.warnings), *map(Text, texts)]
    missing = sum(row["status"] != "done" for row in of.rows)
    if missing:
        warning = (
            f"{missing:,} of {len(of.rows):,} cells are not done. Settings say what they lack: "
            "their means are over fewer seeds than those of others, or chosen among fewer cells."
        )
        blocks.insert(0, Warning(warning))
    return Section("answer", "Answer", tuple(blocks))


def _accuracy(of: Material) -> Section | None:
    table = accuracy_table(of.answers, controls=False, query=of.ask.means)
    return _section("accuracy", "Accuracy", table, published_table(of.answers, of.ask.means))


def _differences(of: Material) -> Section | None:
    if not of.differences:
        return None
    table = difference_table(of.differences, of.margin, of.ask.paired)
    return _section(
        "differences", "Paired differences", table, phase_figure(of.differences, of.ask.paired)
    )


def _treatments(of: Material) -> Section | None:
    table = treatment_table(of.treatments, of.margin, of.ask.treatments) if of.treatments else None
    return _section("treatments", "Treatments of labels and training", table)


def _sensitivity(of: Material) -> Section | None:
    figures = (
        rate_figure(of.rows, of.ask.by_rate),
        *curve_figures(of.answers, of.store, of.ask.by_step),
        *axis_figures(of.answers, of.ask.means),
    )
    return _section("sensitivity", "Accuracy against rates, steps and axes", *figures)


def _models(of: Material) -> Section | None:
    gap = None if of.baseline is None else gap_figure(of.answers, of.baseline, of.ask.means)
    return _section("models", "Pairs of models", gap, size_figure(of.answers, of.ask.means))


def _errors(of: Material) -> Section | None:
    rates = ("error_correction", "error_inheritance")
    figures = [decile_figure(of.answers, rate, of.ask.deciles) for rate in rates]
    reliability = reliability_figures(
        of.answers, of.scores, of.ask.reliability, of.ask.recalibrated
    )
    misfit = misfit_figure(of.rows, of.ask.students)
    return _section("errors", "Errors, calibration and misfit", *figures, *reliability, misfit)


def _theory(of: Material) -> Section | None:
    blocks = tuple(theory_blocks(of.store, of.study, of.rows))
    return Section("theory", "Theory", blocks) if blocks else None


def _transfer(of: Material) -> Section | None:
    return _section("transfer", "Further test sets", *transfer_blocks(of.store, of.study))


def _controls(of: Material) -> Section | None:
    if not any(answer.setting.axes["control"] for answer in of.answers):
        return None
    table = accuracy_table(of.answers, controls=True, query=of.ask.means)
    return Section("controls", "Controls", (table,))


def _power(of: Material) -> Section | None:
    table = power_table(of.differences, of.ask.components) if of.differences else None
    return _section("power", "Power", table)


def _unfinished(of: Material) -> Section | None:
    """Cells that failed or are missing, and done ones without all scores; each with its reason."""
    named = [row for row in of.rows if row["status"] != "done" or row["error"]]
    if not named:
        return None
    axes = axes_of(of.answers)
    values = (
        (
            row["key"],
            row["control"] or row["loss"],
            *(shown_value(axis, row[axis]) for axis in axes),
            row["seed"],
            row["status"],
            row["error"],
        )
        for row in named
    )
    titles = ("key", "loss", *(axis.replace("_", " ") for axis in axes), "seed", "status", "reason")
    table = Table(
        "unfinished",
        "Cells that are not done, or lack a score",
        tuple(TableColumn(title) for title in titles),
        tuple(
            tuple(Cell(text="not run yet" if value is None else str(value)) for value in row)
            for row in values
        ),
        of.ask.unfinished,
    )
    return Section("unfinished", "Failed and missing cells", (table,))


def _cost(of: Material) -> Section:
    steps = step_cost_table(of.costs, of.steps, of.ask.steps)
    students = student_cost_table(of.rows, of.ask.cost)
    return Section("cost", "Cost", (steps,) if students is None else (steps, students))


def _provenance(of: Material) -> Section:
    commits = sorted({row["code_commit"] for row in of.rows if row["code_commit"]})
    dirty = any(row["code_dirty"] for row in of.rows)
    texts = (
        f"Students were trained by code of commit {', '.join(commits) or 'unknown'}"
        + (" with uncommitted changes." if dirty else "."),
        f"Made from {of.store.location(results_file(of.study))} and the predictions beside it by "
        f"python -m w2s_ray.report {shlex.quote(of.store.location(''))} {shlex.quote(of.study)}"
        + ("" if of.baseline is None else f" --baseline {of.baseline}")
        + f" --margin {100 * of.margin:g}",
    )
    return Section("provenance", "Provenance", tuple(Text(text) for text in texts))


def _section(anchor: str, heading: str, *blocks: Table | Figure | None) -> Section | None:
    """None if there is no block."""
    present = tuple(block for block in blocks if block is not None)
    return Section(anchor, heading, present) if present else None


SECTIONS: tuple[Callable[[Material], Section | None], ...] = (
    _answer,
    _accuracy,
    _differences,
    _treatments,
    _sensitivity,
    _models,
    _errors,
    _theory,
    _transfer,
    _controls,
    _power,
    _unfinished,
    _cost,
    _provenance,
)
