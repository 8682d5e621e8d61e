"""The page of one study: its answer, tables and figures, made from the store alone."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from w2s_ray.errors import InputError
from w2s_ray.report.answers import Answer, answer, baseline_of, differences
from w2s_ray.report.page import Page
from w2s_ray.report.row_scores import row_scores
from w2s_ray.report.sections import SECTIONS, Material, Queries
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
        baseline = _baseline(settings, choices.baseline)
        found = [] if baseline is None else differences(settings, scores, baseline, choices.margin)
        material = Material(
            store=store,
            study=study,
            rows=rows,
            answers=answers,
            differences=found,
            baseline=baseline,
            margin=choices.margin,
            scores=scores,
            ask=Queries(store.location(results_file(study)), settings, baseline or ""),
        )
        sections = tuple(filter(None, (section(material) for section in SECTIONS)))
    return Page(f"Study {study}", _subtitle(rows, answers), sections)


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


def _baseline(settings: Sequence[Setting], wanted: str | None) -> str | None:
    """The loss to compare with.

    Raises:
        InputError: the wanted one is not in the study.
    """
    losses = list(dict.fromkeys(of.axes["loss"] for of in settings))
    if wanted is not None and wanted not in losses:
        raise InputError(f"--baseline: given {wanted!r}, expected one of {', '.join(losses)}")
    return wanted or baseline_of(settings)


def _subtitle(rows: Sequence[Row], answers: Sequence[Answer]) -> str:
    states = Counter(row["status"] for row in rows)
    counted = ", ".join(f"{count:,} {status}" for status, count in sorted(states.items()))
    tested = sorted({of.rows for of in answers if of.rows})
    return f"{len(rows):,} cells ({counted}); test rows: {', '.join(map(str, tested)) or 'none'}"
