"""After a run: tables and report are written and shown, and the exit code is found."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from w2s_ray.driver.results_so_far import write_so_far
from w2s_ray.driver.study import Study
from w2s_ray.errors import InputError
from w2s_ray.masking import masked_value
from w2s_ray.plan.exports import exports
from w2s_ray.store.backend import StoreError
from w2s_ray.store.leftovers import remove_leftovers
from w2s_ray.store.names import REPORT_PAGE, report_folder

if TYPE_CHECKING:  # the tables need more imports than most of the command
    from w2s_ray.store.study_tables import StudyTables

MOST_EXPORTS = 8  # lines at the end of a run


def save_unfinished(study: Study, why: str) -> None:
    """Writes the results so far; cells that are not done say so."""
    if path := write_so_far(study):
        study.say(f"results      {path} (unfinished: {why})")


def conclude(study: Study, *, as_json: bool, with_report: bool) -> int:
    """Writes results, predictions and the report, shows them, and returns the exit code."""
    written = _tables(study)
    study.sinks.conclude(written.results)
    paths = {**written.paths, "report": _report(study) if with_report else None}
    folders = exports(study.plan, study.spec.execution.export_models, study.store)
    remove_leftovers(study.store)
    missing, unscored = _incomplete(written.results), _incomplete(written.transfer)
    if as_json:
        summary = {
            "study": study.plan.study,
            "set": masked_value(study.file.overridden),
            "cells": len(study.plan.cells),
            "cells_with_failures": missing,
            **paths,
            "exports": folders,
        }
        print(json.dumps(summary))
    else:
        _show(study, written, paths, folders)
    if missing:
        study.say(
            f"{missing} of {len(study.plan.cells)} cells are incomplete; see the `status` and "
            "`error` columns"
        )
    if unscored:
        study.say(
            f"{unscored} of {written.transfer.num_rows} rows of further test sets are "
            "incomplete; see the `status` and `error` columns of transfer"
        )
    return 1 if missing or unscored else 0


def has_report(study: Study) -> bool:
    """Whether an earlier run left one."""
    return REPORT_PAGE in study.store.listing(report_folder(study.plan.study))


def _tables(study: Study) -> "StudyTables":
    """Writes the tables of the study from its store."""
    from w2s_ray.store.study_tables import write_tables

    with study.store.writing_errors():
        return write_tables(
            study.store,
            study.plan.study,
            study.cells,
            study.plan.select,
            trained_rows=study.spec.execution.train_predictions,
            task=study.plan.task,
        )


def _report(study: Study) -> str | None:
    """Writes the report; None, with the reason said, where it cannot be made.

    Everything else of the run is finished and written by now, so no fault here may end it.
    """
    from w2s_ray.report.saved import save_report

    try:
        with study.store.writing_errors():
            return save_report(study.store, study.plan.study)
    except StoreError:
        raise
    except Exception as error:
        kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
        study.say(f"no report: {kind}{error}")
        return None


def _show(
    study: Study,
    written: "StudyTables",
    paths: Mapping[str, str | None],
    folders: Sequence[str],
) -> None:
    """Prints tables, and where everything is."""
    if study.plan.task == "generation":
        from w2s_ray.report.text_table import text_tables as shown
    else:
        from w2s_ray.report.table import tables as shown
    from w2s_ray.report.transfer_table import transfer_tables

    for table in (*shown(written.results), *transfer_tables(written.transfer)):
        study.say.drawn(table)
    for name, path in paths.items():
        if path is not None:
            study.say(f"{'training' if name == 'train_predictions' else name:<12} {path}")
    for folder in folders[:MOST_EXPORTS]:
        study.say(f"export       {folder}")
    if len(folders) > MOST_EXPORTS:
        study.say(f"exports      {len(folders):,} in all; with --json they are listed")


def _incomplete(table: pa.Table) -> int:
    """Rows that are not done, or lack a score."""
    states = zip(table["status"].to_pylist(), table["error"].to_pylist(), strict=True)
    return sum(status != "done" or error is not None for status, error in states)
