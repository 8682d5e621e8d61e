"""All tables of a study: written together, and again only if what they are made of has changed.

``studies/.<study>.made_of.json`` says what they were made of: digests of the cells, of the records
of all steps, of the notes of failures, and of the code. It is written last, with the digests of the
tables, so a table that was edited, or a run that was killed between two tables, is noticed.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any, NamedTuple

import pyarrow as pa

from w2s_ray.store.artifacts import Store
from w2s_ray.store.canonical import digest
from w2s_ray.store.finished import Finder
from w2s_ray.store.names import (
    predictions_file,
    results_file,
    samples_file,
    study_file,
    train_predictions_file,
    transfer_file,
)
from w2s_ray.store.predictions import write_predictions
from w2s_ray.store.provenance import code_digest
from w2s_ray.store.results import (
    SOFT_LABELS_TASK,
    Cell,
    Select,
    read_results,
    save_cells,
    write_results,
)
from w2s_ray.store.tables import digest_in, is_changed
from w2s_ray.store.text_results import write_samples, write_text_results
from w2s_ray.store.train_predictions import write_train_predictions
from w2s_ray.store.transfer import read_transfer, write_transfer


class StudyTables(NamedTuple):
    """The tables of a study as written, and path or URI of each file; None where there is none."""

    results: pa.Table
    transfer: pa.Table
    paths: Mapping[str, str | None]


def write_tables(
    store: Store,
    study: str,
    cells: Sequence[Cell],
    select: Select | None,
    *,
    trained_rows: bool = False,
    task: str = SOFT_LABELS_TASK,
) -> StudyTables:
    """Writes the cells of a study and its tables, unless they are as they would be written.

    Args:
        select: as of ``results.save_cells``.
        trained_rows: whether to write the predictions of the training rows.
        task: of the spec, which says which tables there are.

    Raises:
        StoreError: An artifact is damaged.
        OSError: The store cannot be written.
    """
    with store.waiting_claim(digest(["tables", study])):  # all of them are of one run
        made_of = _made_of(store, cells, select, trained_rows=trained_rows)
        if (kept := _kept(store, study, made_of)) is not None:
            return kept
        store.remove(_stamp(study))
        save_cells(store, study, cells, select, task)
        if task == SOFT_LABELS_TASK:
            written = _of_soft_labels(store, study, cells, select, trained_rows=trained_rows)
        else:
            written = _of_texts(store, study, cells)
        _write_stamp(store, study, made_of, written.paths)
        return written


def write_results_so_far(
    store: Store, study: str, cells: Sequence[Cell], select: Select | None, task: str
) -> str:
    """Writes the cells of a study and its results, while it runs or after an interruption.

    Returns:
        The path or URI of the results.
    """
    save_cells(store, study, cells, select, task)
    if task == SOFT_LABELS_TASK:
        return write_results(store, study, cells, select, unfinished=True)[1]
    return write_text_results(store, study, cells, unfinished=True)[1]


def _of_texts(store: Store, study: str, cells: Sequence[Cell]) -> StudyTables:
    """The tables of a study of generated text."""
    results, results_path = write_text_results(store, study, cells)
    samples_path = write_samples(store, study, cells)
    paths = {"results": results_path, "samples": samples_path}
    return StudyTables(results, results.slice(0, 0), paths)


def _of_soft_labels(
    store: Store, study: str, cells: Sequence[Cell], select: Select | None, *, trained_rows: bool
) -> StudyTables:
    results, results_path = write_results(store, study, cells, select)
    predictions_path = write_predictions(store, study, cells)
    trained_path = write_train_predictions(store, study, cells) if trained_rows else None
    transfer, transfer_path = write_transfer(store, study, cells, select)
    paths = {
        "results": results_path,
        "predictions": predictions_path,
        "train_predictions": trained_path,
        "transfer": transfer_path,
    }
    return StudyTables(results, transfer, paths)


def _write_stamp(store: Store, study: str, made_of: str, paths: Mapping[str, str | None]) -> None:
    digests = _digests(store, study, [name for name, path in paths.items() if path is not None])
    store.write_json(_stamp(study), {"made_of": made_of, "digests": digests})


def _kept(store: Store, study: str, made_of: str) -> StudyTables | None:
    """The tables as they are; None if they must be written."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        stamp = store.read_json(_stamp(study))
        names = [name for name in _FILES if name in stamp["digests"]]
        if stamp["made_of"] != made_of or _digests(store, study, names) != stamp["digests"]:
            return None
        files = {name: _FILES[name](study) for name in names}
        if any(is_changed(store, file) for file in files.values()):
            return None
        results = read_results(store, study)
        if "samples" in files:
            of_texts = {name: store.location(file) for name, file in files.items()}
            return StudyTables(results, results.slice(0, 0), of_texts)
        paths = {name: store.location(files[name]) if name in files else None for name in _TABLES}
        return StudyTables(results, read_transfer(store, study), paths)
    return None


_TABLES = {
    "results": results_file,
    "predictions": predictions_file,
    "train_predictions": train_predictions_file,
    "transfer": transfer_file,
}
_FILES = {**_TABLES, "samples": samples_file}


def _digests(store: Store, study: str, names: Sequence[str]) -> dict[str, str | None]:
    """What is written beside the tables, and the digest of the file of cells."""
    (cells,) = store.backend.read([study_file(study)])
    of_tables: dict[str, str | None] = {
        name: digest_in(store, _FILES[name](study)) for name in names
    }
    return of_tables | {"cells": None if cells is None else sha256(cells).hexdigest()}


def _made_of(
    store: Store, cells: Sequence[Cell], select: Select | None, *, trained_rows: bool
) -> str:
    """The digest of all that the tables are made of."""
    tests = (keys for cell in cells for keys in cell.get("tests", {}).values())
    keys = {key: None for of in (*(cell["keys"] for cell in cells), *tests) for key in of.values()}
    parts: list[Any] = [code_digest(), list(cells), select, trained_rows]
    notes = {key: note for key, note in store.failures().items() if key in keys}
    parts += [Finder(store, keys).digests(), notes]
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _stamp(study: str) -> str:
    folder, _, name = study_file(study).rpartition("/")
    return f"{folder}/.{name.removesuffix('.json')}.made_of.json"
