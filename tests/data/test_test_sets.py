"""Further test sets: read as their data set, with its classes, and trained rows counted."""

import json
from pathlib import Path
from typing import Any

import pytest

from w2s_ray.data.prepare import Prepared, prepare
from w2s_ray.data.sources import data_identity
from w2s_ray.data.test_sets import TRAINED_ON, as_data, prepare_test_set
from w2s_ray.errors import InputError
from w2s_ray.spec.schema import DataSpec


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / name)


def pairs(prefix: str, count: int) -> list[dict[str, Any]]:
    return [
        {"prompt": f"{prefix} {n}?", "chosen": f"yes {n}", "rejected": f"no {n}"}
        for n in range(count)
    ]


def texts(labels: list[str], start: int = 0) -> list[dict[str, Any]]:
    return [{"text": f"text {start + n}", "label": label} for n, label in enumerate(labels)]


def data_of(folder: Path, kind: str, tests: dict[str, Any], **splits: Any) -> DataSpec:
    files = {name: write(folder, f"{name}.jsonl", rows) for name, rows in splits.items()}
    return DataSpec.model_validate({"kind": kind, "splits": files, "tests": tests})


def read(data: DataSpec, name: str) -> Prepared:
    own = prepare(data)
    trained = {split: own.tables[split]["row_id"].to_pylist() for split in TRAINED_ON}
    return prepare_test_set(as_data(data, name), data, own.report["classes"], trained)


@pytest.fixture
def three(tmp_path: Path) -> dict[str, list[dict[str, Any]]]:
    return {name: pairs(name, 6) for name in ("ground_truth", "weak", "test")}


def test_the_own_test_file_gives_the_own_test_rows(tmp_path: Path, three: Any) -> None:
    again = str(tmp_path / "test.jsonl")
    data = data_of(tmp_path, "preference", {"again": again}, **three)
    assert read(data, "again").tables["test"].equals(prepare(data).tables["test"])


def test_rows_that_were_trained_on_are_counted(tmp_path: Path, three: Any) -> None:
    same_prompt = {**three["weak"][1], "chosen": "perhaps"}
    rows = [*pairs("new", 4), three["ground_truth"][0], same_prompt]
    path = write(tmp_path, "more.jsonl", rows)
    data = data_of(tmp_path, "preference", {"more": path}, **three)
    assert read(data, "more").report["trained_on"] == {
        "rows": 2,
        "ground_truth": {"rows": 1, "texts": 1, "groups": 1},
        "weak": {"rows": 0, "texts": 1, "groups": 1},
    }


def test_a_set_of_trained_rows_alone_is_refused(tmp_path: Path, three: Any) -> None:
    again = str(tmp_path / "weak.jsonl")
    data = data_of(tmp_path, "preference", {"again": again}, **three)
    with pytest.raises(InputError, match=r"weak.jsonl: given 6 rows, expected some that no model"):
        read(data, "again")


def test_order_of_rows_and_number_of_files_change_nothing(tmp_path: Path, three: Any) -> None:
    rows = pairs("new", 8)
    whole = write(tmp_path, "whole.jsonl", rows)
    parts = [write(tmp_path, "z.jsonl", rows[5::-1]), write(tmp_path, "a.jsonl", rows[6:])]
    tests = {"whole": {"source": whole, "rows": 5}, "parts": {"source": parts, "rows": 5}}
    data = data_of(tmp_path, "preference", tests, **three)
    one, other = (read(data, name) for name in tests)
    assert one.tables["test"].equals(other.tables["test"]) and one.tables["test"].num_rows == 5
    assert one.report == other.report


def test_classes_have_the_indices_of_the_data_set(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d", "e"]
    splits = {
        split: texts(names, start)
        for split, start in (("ground_truth", 0), ("weak", 10), ("test", 20))
    }
    path = write(tmp_path, "more.jsonl", texts(["e", "c", "c"], 30))
    data = data_of(tmp_path, "classification", {"more": path}, **splits)
    found = read(data, "more")
    assert sorted(found.tables["test"]["label"].to_pylist()) == [2, 2, 4]
    assert found.num_classes == 5
    assert found.report["absent_classes"] == {"test": ["a", "b", "d"]}


def test_an_unknown_class_is_refused_and_no_label_is_counted(tmp_path: Path) -> None:
    splits = {
        split: texts(["good", "bad"], start)
        for split, start in (("ground_truth", 0), ("weak", 10), ("test", 20))
    }
    wrong = write(tmp_path, "wrong.jsonl", texts(["good", "god"], 30))
    missing = write(tmp_path, "missing.jsonl", texts(["good", "NaN"], 30))
    tests = {"wrong": wrong, "missing": missing}
    data = data_of(tmp_path, "classification", tests, **splits)
    expected = r"wrong.jsonl:2: label 'god', expected one of .*: bad, good; did you mean 'good'"
    with pytest.raises(InputError, match=expected):
        read(data, "wrong")
    found = read(data, "missing")
    assert found.tables["test"].num_rows == 1
    assert found.report["read"]["test"]["unusable"] == {"no label (NaN)": 1}


def test_what_a_set_does_not_say_is_as_in_the_data_set(tmp_path: Path, three: Any) -> None:
    columns = {"chosen": "better", "group": "id"}
    tests = {
        "same": "x.jsonl",
        "other": {"source": "x.jsonl", "columns": {"chosen": "best", "group": None}},
    }
    data = data_of(tmp_path, "preference", tests, **three)
    data = data.model_copy(update={"columns": type(data.columns)(**columns), "format": "trl"})
    same, other = as_data(data, "same"), as_data(data, "other")
    assert same.columns.model_dump(exclude_none=True) == columns
    assert other.columns.model_dump(exclude_none=True) == {"chosen": "best"}
    assert same.format == "trl" and same.tests == {}


def test_further_sets_are_no_part_of_what_the_data_set_is(tmp_path: Path, three: Any) -> None:
    path = write(tmp_path, "more.jsonl", pairs("new", 3))
    alone = data_of(tmp_path, "preference", {}, **three)
    with_more = data_of(tmp_path, "preference", {"more": path}, **three)
    assert data_identity(alone) == data_identity(with_more)
