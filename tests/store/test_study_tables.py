"""A study's tables are written again exactly when something that they are made of has changed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from w2s_ray.store import study_tables
from w2s_ray.store.artifacts import Store
from w2s_ray.store.study_tables import StudyTables, write_tables

STAMP = "studies/.hh.made_of.json"
TABLES = ("results", "predictions", "train_predictions", "transfer")


@pytest.fixture
def finished(local: Store, study: Any) -> Any:
    made = study(local)
    made.finish_all()
    return made


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the studies whose results are written, in order."""
    found: list[str] = []
    write = study_tables.write_results

    def counted(store: Store, name: str, *others: Any) -> Any:
        found.append(name)
        return write(store, name, *others)

    monkeypatch.setattr(study_tables, "write_results", counted)
    return found


def written(store: Store, made: Any, **options: Any) -> StudyTables:
    return write_tables(store, "hh", made.cells, None, **{"trained_rows": True, **options})


def test_what_has_not_changed_is_not_written_again(
    local: Store, finished: Any, writes: list[str]
) -> None:
    first, second = written(local, finished), written(local, finished)
    assert writes == ["hh"]
    assert second.results.equals(first.results)
    assert second.transfer.equals(first.transfer)
    assert dict(second.paths) == dict(first.paths)
    assert set(first.paths) == set(TABLES)


def _edit_results(root: Path) -> None:
    file = root / "results/hh.parquet"
    pq.write_table(pq.read_table(file).slice(1), file)


def _edit_cells(root: Path) -> None:
    file = root / "studies/hh.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "cells": []}))


CHANGES: dict[str, Callable[[Path], object]] = {
    "an edited table": _edit_results,
    "edited cells": _edit_cells,
    "a table that is gone": lambda root: (root / "predictions/hh.parquet").unlink(),
    "a digest that is gone": lambda root: (root / "results/.hh.parquet.sha256").unlink(),
    "a stamp that is no JSON": lambda root: (root / STAMP).write_text("{"),
    "a stamp that is a list": lambda root: (root / STAMP).write_text("[]"),
    "an empty stamp": lambda root: (root / STAMP).write_text("{}"),
    "no stamp": lambda root: (root / STAMP).unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_files_writes_them_again(
    local: Store, finished: Any, writes: list[str], tmp_path: Path, change: str
) -> None:
    first = written(local, finished)
    root = Path(local.location("")).absolute()
    before = {
        name: (root / f"{name}/hh.parquet").read_bytes() for name in ("results", "predictions")
    }
    CHANGES[change](root)
    assert written(local, finished).results.equals(first.results)
    assert writes == ["hh", "hh"]
    for name, content in before.items():
        assert (root / f"{name}/hh.parquet").read_bytes() == content
    written(local, finished)
    assert writes == ["hh", "hh"], "and then they are kept"


def test_a_failure_a_record_and_other_options_write_them_again(
    local: Store, study: Any, writes: list[str]
) -> None:
    made = study(local)
    first, *others = made.cells
    made.finish_all(others)
    written(local, made)
    local.record_failure(made.step("student", first), RuntimeError("it broke"))
    assert "it broke" in str(written(local, made).results["error"].to_pylist())
    made.finish_all([first])
    assert set(written(local, made).results["status"].to_pylist()) == {"done"}
    assert len(writes) == 3
    written(local, made, trained_rows=False)
    write_tables(local, "hh", others, None, trained_rows=False)
    assert len(writes) == 5


def test_a_table_of_another_code_is_written_again(
    local: Store, finished: Any, writes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written(local, finished)
    monkeypatch.setattr(study_tables, "code_digest", lambda: "another")
    written(local, finished)
    assert len(writes) == 2
