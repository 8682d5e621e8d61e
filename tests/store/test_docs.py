"""docs/results.md lists exactly the columns there are, and its examples run."""

import re
from pathlib import Path
from typing import Any

import pytest

from w2s_ray.store.artifacts import Store
from w2s_ray.store.columns import (
    AXES,
    PREDICTIONS,
    PREDICTIONS_SCHEMA_VERSION,
    RESULTS,
    RESULTS_SCHEMA_VERSION,
    Column,
)
from w2s_ray.store.predictions import write_predictions
from w2s_ray.store.results import save_cells, write_results
from w2s_ray.store.train_columns import TRAIN_PREDICTIONS, TRAIN_PREDICTIONS_SCHEMA_VERSION
from w2s_ray.store.train_predictions import write_train_predictions
from w2s_ray.store.transfer_columns import TRANSFER, TRANSFER_SCHEMA_VERSION

PAGE = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def described(column: Column) -> str:
    star = "" if column.nullable else " *"
    unit = f" {column.unit}" if column.unit else ""
    return f"| `{column.name}`{star} | `{column.type}` |{unit} | {column.description} |"


@pytest.mark.parametrize(
    ("title", "version", "columns"),
    [
        ("results", RESULTS_SCHEMA_VERSION, RESULTS),
        ("transfer", TRANSFER_SCHEMA_VERSION, tuple(c for c in TRANSFER if c not in AXES)),
        ("predictions", PREDICTIONS_SCHEMA_VERSION, PREDICTIONS),
        ("train_predictions", TRAIN_PREDICTIONS_SCHEMA_VERSION, TRAIN_PREDICTIONS),
    ],
)
def test_the_page_describes_the_schema(
    title: str, version: int, columns: tuple[Column, ...]
) -> None:
    section = PAGE.split(f"\n## `{title}`, schema version {version}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    assert lines == [described(column) for column in columns]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda code: code.split()[1].rstrip(";"))
def test_the_examples_run(
    example: str, tmp_path: Path, study: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    store = Store.open(tmp_path / "store")
    made = study(store, seeds=[0])
    made.finish_all()
    save_cells(store, "hh", made.cells)
    write_results(store, "hh", made.cells)
    write_predictions(store, "hh", made.cells)
    write_train_predictions(store, "hh", made.cells)
    files = {path: path.read_bytes() for path in (tmp_path / "store").glob("*/hh.parquet")}
    assert len(files) == 3
    if "write_results" in example:
        for path in files:
            path.unlink()
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/results.md", "exec"), {})
    assert {path: path.read_bytes() for path in files} == files
    if "print" in example:
        assert "reverse_kl" in capsys.readouterr().out


def test_there_is_an_example_for_each_reader() -> None:
    for name in ("pandas", "polars", "duckdb"):
        assert any(f"import {name}" in example for example in EXAMPLES)
