"""Settings that leave a student without rows are refused before anything is computed."""

import json
from pathlib import Path
from typing import Any

import pytest

from w2s_ray.study import main

CASES: dict[str, tuple[dict[str, Any], str]] = {
    "validation and a filter": (
        {"validation": {"rows": 35}, "grid__label_filter": {"keep": 0.05, "by": "confidence"}},
        "grid.label_filter: given {keep: 0.05, by: confidence}, expected a share that keeps one of "
        "the 5 rows of data set 'pairs'",
    ),
    "a subset and a filter": (
        {"grid__train_rows": [5], "grid__label_filter": {"keep": 0.05, "by": "knn"}},
        "grid.label_filter: given {keep: 0.05, by: knn}, expected a share that keeps one of the 5",
    ),
    "one row to judge": (
        {"grid__train_rows": [1], "grid__relabel": ["probe"]},
        "grid.relabel: given probe, expected none where students learn from 1 row",
    ),
    "a subset larger than what validation leaves": (
        {"validation": {"rows": 30}, "grid__train_rows": [20]},
        "grid.train_rows: given 20, expected at most 10, the weak rows of data set 'pairs' that "
        "are not held out",
    ),
    "validation of all rows": (
        {"validation": {"rows": 40}},
        "validation.rows: given 40, expected less than 40",
    ),
}


def split_files(folder: Path) -> dict[str, Any]:
    """40 rows a split, whose number the spec does not give."""
    for split in ("ground_truth", "weak", "test"):
        rows = [{"prompt": f"{split} {n}", "chosen": "yes", "rejected": "no"} for n in range(40)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    files = {split: f"{split}.jsonl" for split in ("ground_truth", "weak", "test")}
    return {"pairs": {"kind": "preference", "splits": files}}


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_computed_where_no_row_would_remain(
    write_spec: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    changes, message = CASES[case]
    spec = write_spec(data=split_files(tmp_path), **changes)
    assert main([str(spec), "--plan"]) == 0  # nobody has counted the rows yet
    assert main([str(spec), "--local"]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("store/features/*"))


@pytest.mark.parametrize("case", [case for case in CASES if "larger" not in case])
def test_the_plan_refuses_where_the_spec_gives_the_sizes(
    write_spec: Any, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    changes, message = CASES[case]
    assert main([str(write_spec(**changes)), "--plan"]) == 2
    assert message in capsys.readouterr().err
