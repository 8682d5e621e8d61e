"""A whole study whose models are aligned by preference pairs of the researcher's own."""

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.testing.text_studies import BAD, CHECKER, GOOD, text_spec
from w2s_ray.plan.build import build
from w2s_ray.spec.loading import load
from w2s_ray.spec.messages import SpecError
from w2s_ray.study import main

pytestmark = pytest.mark.long


def test_pairs_of_ones_own_align_the_weak_model_and_the_ceiling(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"prompt": f"say {n % 12}: ", "chosen": GOOD[: 3 + n % 5], "rejected": BAD[: 3 + n % 7]}
        for n in range(16)
    ]
    rows.append({"prompt": "tell me 0: ", "chosen": "yes", "rejected": "no"})
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts = {
        "source": "prompts.jsonl",
        "sizes": {"align": 0, "train": 16, "test": 8},
        "checker": CHECKER,
    }
    given = {"given": {"source": "pairs.jsonl", "rows": 12}}
    grid = {"pair": [["weak", "strong"]], "method": ["cong_s"], "seed": [0, 1]}
    spec = text_spec(tmp_path, prompts=prompts, pairs=given, grid=grid)
    plan = build(load(spec))
    assert Counter(step.kind.name for step in plan.steps.values())["pairs"] == 1
    assert main([str(spec), "--local"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "pairs: 12 of 17 rows, 1 with a prompt of train, test or transfer, 4 usable but" in said
    results = pq.read_table(tmp_path / "store/results/tiny-text.parquet").to_pylist()
    aligned = ("weak", "ceiling", "cong_s")
    assert {row["align_pairs"] for row in results if row["method"] in aligned} == {12}
    assert {row["status"] for row in results} == {"done"}
    by_method = {row["method"]: row for row in results if row["seed"] == 0}
    assert by_method["weak"]["log_ratio"] != 0.0 != by_method["ceiling"]["log_ratio"]

    grid["seed"] = [0, 1, 2]
    text_spec(tmp_path, prompts=prompts, pairs=given, grid=grid)
    assert main([str(spec), "--local"]) == 0
    assert "pairs: 12 of 17 rows, 1 with" in " ".join(capsys.readouterr().out.split())
    assert main([str(spec), "--local", "--smoke"]) == 0
    file.write_text(json.dumps({"prompt": "say 1: "}) + "\n")
    assert main([str(spec), "--local"]) == 2
    assert "pairs.jsonl:1: " in capsys.readouterr().err
    for wrong, message in (
        ({"pairs": {"samples": 4, **given}}, "nothing beside given"),
        ({"prompts": {**prompts, "sizes": {"align": 4}}}, "expected 0 with pairs.given"),
        ({"pairs": {}}, "1 or more, or pairs.given"),
    ):
        with pytest.raises(SpecError, match=message):
            load(text_spec(tmp_path, **{"prompts": prompts, "pairs": given, **wrong}))


def test_given_pairs_that_are_cut_are_said_and_those_of_the_same_tokens_are_no_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = "x" * 70  # more than max_length_tokens
    rows = [{"prompt": f"ask {n}: ", "chosen": "yes", "rejected": "no"} for n in range(5)]
    rows += [{"prompt": f"beg {n}: ", "chosen": same + "y", "rejected": same} for n in range(3)]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts = {
        "source": "prompts.jsonl",
        "sizes": {"align": 0, "train": 8, "test": 6},
        "checker": CHECKER,
    }
    pairs = {"given": {"source": "pairs.jsonl", "rows": 8}}
    grid = {"pair": [["weak", "strong"]], "method": ["untrained"]}
    spec = text_spec(tmp_path, prompts=prompts, pairs=pairs, grid=grid)
    assert main([str(spec), "--local"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "model 'weak': 3 of 8 are cut to 64 tokens" in said
    assert "and 3 with two answers of the same tokens are left out" in said
    results = pq.read_table(tmp_path / "store/results/tiny-text.parquet").to_pylist()
    (weak,) = (row for row in results if row["method"] == "weak")
    assert (weak["trained_rows"], weak["left_out_rows"], weak["align_pairs"]) == (5, 3, 5)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows[5:]))
    pairs["given"]["rows"] = 3
    assert main([str(text_spec(tmp_path, prompts=prompts, pairs=pairs, grid=grid)), "--local"]) == 2
    assert "expected more: model 'weak' reads the two answers" in " ".join(
        capsys.readouterr().err.split()
    )
