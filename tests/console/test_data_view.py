"""What a run shows of its data: every count of the report, and names that can be seen."""

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from w2s_ray.console.data_view import lines, table
from w2s_ray.data.prepare import SPLITS, prepare
from w2s_ray.spec.schema import DataSpec


def report(folder: Path, rows: dict[str, list[dict[str, Any]]], **more: Any) -> dict[str, Any]:
    files = {}
    for split, of in rows.items():
        files[split] = str(folder / f"{split}.jsonl")
        Path(files[split]).write_text("".join(json.dumps(row) + "\n" for row in of))
    where = {"splits": files} if len(files) > 1 else {"source": files["source"]}
    return prepare(DataSpec.model_validate({**where, **more})).report


def shown(report: dict[str, Any]) -> list[list[str]]:
    out = io.StringIO()
    Console(file=out, width=160).print(table("d", report))
    return [line.split() for line in out.getvalue().splitlines() if line.strip()]


def test_a_table_of_rows_prompts_and_classes(tmp_path):
    rows = [{"text": f"[b] text {n // 2}", "label": ("up", "down ")[n % 2]} for n in range(40)]
    of_source = report(
        tmp_path,
        {"source": [*rows, {"text": "", "label": "up"}]},
        kind="classification",
        sizes=dict.fromkeys(SPLITS, 10),
    )
    table_lines = shown(of_source)
    assert " ".join(table_lines[0]) == "d: what was read"
    assert " ".join(table_lines[1]) == "rows read not usable rows used texts 'down ' up"
    assert ["source", "41", "1", "30"] in table_lines
    for split in SPLITS:
        assert [split, "10", "5", "50.0", "%", "50.0", "%"] in table_lines
    assert list(lines("d", of_source)) == [
        "d: 2 classes, in order: 'down ', up",
        "d: of 41 rows of source: 10 are usable but in no split (sizes)",
        "d: not usable of 41 rows of source: 1 empty text",
        "d: of 41 rows of source: 40 contradict another row (the same text has another label)",
    ]


def test_lines_name_all_that_a_reader_should_know(tmp_path):
    pair = {"chosen": "Which? Yes.", "rejected": "Which? No."}
    rows = {
        "ground_truth": [pair, pair, {"chosen": "Who? I.", "rejected": "Who? You."}],
        "weak": [{"chosen": "Which? No.", "rejected": "Which? Yes."}],
        "test": [{"prompt": "When?", "chosen": " Now", "rejected": " Then"}],
    }
    told = "\n".join(lines("d", report(tmp_path, rows, kind="preference")))
    assert "of 3 rows of ground_truth: 1 repeat another row of it" in told
    assert "of 3 rows of ground_truth: 2 contradict another row (the pair is also turned" in told
    assert "of 1 row of weak: 1 contradict another row" in told
    assert "is a guess for 4 of 5 rows" in told
    assert "1 prompt or text (33.3 %) is in more than one of the given splits" in told
    assert "1 row of weak has a whole text that ground_truth has too" in told


def test_classes_that_look_alike_or_are_absent_are_named(tmp_path):
    def texts(split: str, labels: list[str]) -> list[dict[str, Any]]:
        return [{"text": f"{split} {n}", "label": label} for n, label in enumerate(labels)]

    many = [f"c{n:03}" for n in range(60)]
    rows = {
        "ground_truth": texts("g", ["calm", "calm ", *many]),
        "weak": texts("w", ["calm", "calm ", *many]),
        "test": texts("t", ["calm", *many]),
    }
    of_splits = report(tmp_path, rows, kind="classification")
    told = list(lines("d", of_splits))
    assert told[0].startswith("d: 62 classes, in order: c000, c001, ")
    assert told[0].endswith(" and 22 more")
    assert [line.split(": ")[1] for line in told[1:4]] == [f"shares in {split}" for split in SPLITS]
    assert told[3].startswith("d: shares in test: c000 1.6 %, c001 1.6 %, ")
    assert told[4] == "d: classes that look alike but are different ones: 'calm' and 'calm '"
    assert told[5] == "d: test has no row of 'calm '"
    assert " ".join(shown(of_splits)[1]) == "rows read not usable rows used texts"
