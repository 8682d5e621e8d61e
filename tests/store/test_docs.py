"""docs/results.md lists exactly the columns there are; its examples and docs/recipes.md run."""

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

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "results.md").read_text(encoding="utf-8")
RECIPES = (DOCS / "recipes.md").read_text(encoding="utf-8")
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)
EXAMPLES = CODE.findall(PAGE) + CODE.findall(RECIPES)


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
    bins = [
        {"from": 0.5, "to": 0.7, "rows": 2, "error_inheritance": 0.5, "error_correction": 0.5},
        {"from": 0.7, "to": 1.0, "rows": 2, "error_inheritance": None, "error_correction": None},
    ]
    for cell in made.cells:
        made.finish("student_evaluate", cell, by_weak_confidence=bins)
    made.finish_all()
    for name in ("hh", "agreement"):
        cells = [of | {"cell": of["cell"] | {"study": name}} for of in made.cells]
        save_cells(store, name, cells)
        write_results(store, name, cells)
    write_predictions(store, "hh", made.cells)
    write_train_predictions(store, "hh", made.cells)
    files = {path: path.read_bytes() for path in (tmp_path / "store").glob("*/hh.parquet")}
    assert len(files) == 3
    if "write_results" in example:
        for path in files:
            path.unlink()
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "example of docs", "exec"), {})
    assert {path: path.read_bytes() for path in files} == files
    if "print" in example:
        assert "reverse_kl" in capsys.readouterr().out


def test_there_is_an_example_for_each_reader() -> None:
    for name in ("pandas", "polars", "duckdb"):
        assert any(f"import {name}" in example for example in EXAMPLES)
    questions = RECIPES.split("\n## ")[1:]
    assert len(questions) >= 5
    for question in questions:
        imports = [
            re.findall(r"^import (pandas|polars|duckdb)", code, re.MULTILINE)
            for code in CODE.findall(question)
        ]
        assert imports == [["pandas"], ["polars"], ["duckdb"]], question.splitlines()[0]
