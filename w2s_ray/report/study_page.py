"""The page of one study: its answer, tables and figures, made from the store alone."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from w2s_ray.errors import InputError, line_of
from w2s_ray.report.answers import (
    Answer,
    Difference,
    answer,
    baseline_of,
    differences,
    treatment_differences,
)
from w2s_ray.report.cost_tables import StepCost, keys_of
from w2s_ray.report.page import Page
from w2s_ray.report.row_scores import row_scores
from w2s_ray.report.sections import SECTIONS, Material, Queries
from w2s_ray.report.settings import LOSS, Row, Setting, settings_of
from w2s_ray.store.artifacts import Store
from w2s_ray.store.columns import RESULTS_SCHEMA_VERSION
from w2s_ray.store.names import results_file, study_file
from w2s_ray.store.results import (
    SOFT_LABELS_TASK,
    load_cells,
    load_select,
    load_task,
    read_results,
    results_table,
    saved_studies,
)

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


class _Saved(NamedTuple):
    """What a run leaves of a study: its file of results, its cells, and how they are chosen."""

    file: pa.Table | None
    cells: list[dict[str, Any]]
    select: dict[str, Any] | None


def study_page(store: Store, study: str, choices: Choices) -> Page:
    """The page of a study.

    Raises:
        InputError: the store has no such study, or a table of another version.
    """
    if _is_of_text(store, study):
        from w2s_ray.report.text_page import text_page

        return text_page(store, study)
    file, cells, select = _saved(store, study)
    keys = keys_of(cells)
    records = store.records(keys)
    rows, warnings = _results(store, study, file, results_table(store, cells, select, records))
    settings = settings_of(rows)
    with row_scores(store, study) as scores:
        answers = [answer(of, scores) for of in settings]
        baseline = _baseline(settings, choices.baseline)
        found = [] if baseline is None else differences(settings, scores, baseline, choices.margin)
        material = Material(
            store=store,
            study=study,
            rows=rows,
            warnings=warnings,
            answers=answers,
            differences=found,
            treatments=treatment_differences(settings, scores, choices.margin),
            baseline=baseline,
            margin=choices.margin,
            scores=scores,
            costs=[StepCost.of(record) for record in records.values()],
            steps=len(keys),
            ask=Queries(store, study, settings, _loss_of_base(found), records),
        )
        sections = tuple(filter(None, (section(material) for section in SECTIONS)))
    return Page(f"Study {study}", _subtitle(rows, answers), sections)


def _is_of_text(store: Store, study: str) -> bool:
    """Whether a study is of generated text; what is wrong with it is said elsewhere."""
    try:
        return load_task(store, study) != SOFT_LABELS_TASK
    except (OSError, ValueError, AttributeError):
        return False


def _saved(store: Store, study: str) -> _Saved:
    try:
        cells, select = load_cells(store, study), load_select(store, study)
    except FileNotFoundError:
        known = ", ".join(saved_studies(store)) or "none"
        raise InputError(
            f"study: given {study!r}, expected one that {store.location('')} has: {known}"
        ) from None
    except (ValueError, KeyError) as error:
        raise InputError(
            f"study {study!r}: {store.location(study_file(study))} is damaged ({line_of(error)}); "
            "run the study again, which writes it anew"
        ) from None
    try:
        file = read_results(store, study)
        versions = set(file["schema_version"].to_pylist()) - {RESULTS_SCHEMA_VERSION}
    except FileNotFoundError:
        raise InputError(
            f"study {study!r}: its results were not written yet; run the study again"
        ) from None
    except (pa.ArrowInvalid, KeyError):  # it is said, and the page is made without it
        file, versions = None, set()
    if versions:
        raise InputError(
            f"study {study!r}: its results have schema version {versions.pop()}, expected "
            f"{RESULTS_SCHEMA_VERSION}; run the study again, which writes them anew"
        )
    if not cells:
        raise InputError(f"study {study!r}: its results are empty, expected at least one cell")
    return _Saved(file, cells, select)


def _results(
    store: Store, study: str, file: pa.Table | None, table: pa.Table
) -> tuple[list[Row], list[str]]:
    """The rows of the results as the records are, and what differs in their file."""
    if file is not None and file.equals(table):
        return table.to_pylist(), []
    warning = (
        f"{store.location(results_file(study))} is not what the records of its store say: it was "
        "edited, damaged or written by another version, or the study has gone on since. This page "
        "is made from the records; run the study again to write the file anew."
    )
    return table.to_pylist(), [warning]


def _baseline(settings: Sequence[Setting], wanted: str | None) -> str | None:
    """The loss to compare with.

    Raises:
        InputError: the wanted one is not in the study.
    """
    losses = list(dict.fromkeys(of.axes["loss"] for of in settings if not of.axes["control"]))
    if wanted is not None and wanted not in losses:
        raise InputError(f"--baseline: given {wanted!r}, expected one of {', '.join(losses)}")
    return wanted or baseline_of(settings)


def _loss_of_base(found: Sequence[Difference]) -> tuple[str, str]:
    """Name and parameters of the loss that the others are compared with; "" without any."""
    axes = found[0].baseline.axes if found else dict.fromkeys(LOSS, "")
    return axes["loss"], axes["loss_parameters"]


def _subtitle(rows: Sequence[Row], answers: Sequence[Answer]) -> str:
    states = Counter(row["status"] for row in rows)
    counted = ", ".join(f"{count:,} {status}" for status, count in sorted(states.items()))
    tested = sorted({of.rows for of in answers if of.rows})
    return f"{len(rows):,} cells ({counted}); test rows: {', '.join(map(str, tested)) or 'none'}"
