"""Tables that depend on content and seed alone, splits that share no prompt, counts that add up."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from w2s_ray.data.prepare import SPLITS, Prepared, prepare
from w2s_ray.errors import InputError
from w2s_ray.spec.schema import DataSpec

Rows = list[dict[str, Any]]


def save(path: Path, rows: Rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def given_splits(folder: Path, rows: dict[str, Rows], **changes: Any) -> DataSpec:
    splits = {name: [save(folder / f"{name}.jsonl", part)] for name, part in rows.items()}
    return DataSpec.model_validate({"kind": "preference", "splits": splits, **changes})


def one_source(path: Path, rows: Rows, sizes: tuple[int, int, int], **changes: Any) -> DataSpec:
    spec = {"kind": "preference", "source": save(path, rows), **changes}
    return DataSpec.model_validate({**spec, "sizes": dict(zip(SPLITS, sizes, strict=True))})


def pairs(n: int, prompts: int) -> Rows:
    return [
        {"prompt": f"p{i % prompts}:", "chosen": f" good {i}", "rejected": f" bad {i} or worse"}
        for i in range(n)
    ]


def ids(prepared: Prepared, split: str) -> list[str]:
    found: list[str] = prepared.tables[split]["row_id"].to_pylist()
    return found


def test_the_order_and_number_of_files_change_nothing(tmp_path):
    rows = {name: pairs(60, 7) for name in SPLITS}
    straight = prepare(given_splits(tmp_path, rows, sizes={"weak": 25}))
    mixed = {name: random.Random(1).sample(part, len(part)) for name, part in rows.items()}
    parts = {
        name: [save(tmp_path / f"{name}{cut}.jsonl", part[cut::3]) for cut in (2, 0, 1)]
        for name, part in mixed.items()
    }
    spec = {"kind": "preference", "splits": parts, "sizes": {"weak": 25}}
    other = prepare(DataSpec.model_validate(spec))
    assert straight.tables == other.tables
    assert straight.report == other.report
    assert straight.tables["weak"].num_rows == 25


def test_the_columns_are_those_of_the_contract(tmp_path):
    prepared = prepare(one_source(tmp_path / "x.jsonl", pairs(30, 30), (10, 10, 10)))
    for table in prepared.tables.values():
        assert table.schema == pa.schema(
            {"row_id": pa.string(), "prompt": pa.string(), "answers": pa.list_(pa.string()),
             "label": pa.int64()}
        )  # fmt: skip
        assert table["row_id"].to_pylist() == sorted(table["row_id"].to_pylist())
        for row in table.to_pylist():
            a, b = row["answers"]
            assert (a if row["label"] else b).startswith(" good")
            assert (b if row["label"] else a).startswith(" bad")
    assert (prepared.num_classes, prepared.per_row) == (2, 2)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n=st.integers(40, 120), prompts=st.integers(12, 120), seed=st.integers(0, 2**40))
def test_no_prompt_falls_in_two_splits_of_ours(tmp_path, n, prompts, seed):
    spec = one_source(tmp_path / "x.jsonl", pairs(n, prompts), (8, 6, 5), seed=seed)
    tables = prepare(spec).tables
    assert [tables[split].num_rows for split in SPLITS] == [8, 6, 5]
    seen = [set(tables[split]["prompt"].to_pylist()) for split in SPLITS]
    assert sum(map(len, seen)) == len(set().union(*seen))


def test_rows_without_prompt_are_kept_apart_by_their_texts(tmp_path):
    rows: Rows = []
    for i in range(30):
        rows.append({"prompt": "", "chosen": f"good {i}", "rejected": f"bad {i}"})
        rows.append({"prompt": "", "chosen": f"bad {i}", "rejected": f"good {i}"})
    tables = prepare(one_source(tmp_path / "x.jsonl", rows, (15, 15, 15))).tables
    texts = [{a for row in tables[split]["answers"].to_pylist() for a in row} for split in SPLITS]
    assert sum(map(len, texts)) == len(set().union(*texts))


def test_the_test_rows_stay_when_the_training_rows_become_more(tmp_path):
    def test_ids(sizes: tuple[int, int, int]) -> list[str]:
        return ids(prepare(one_source(tmp_path / "x.jsonl", pairs(90, 90), sizes)), "test")

    assert test_ids((10, 10, 20)) == test_ids((30, 40, 20))


def test_the_seed_deals_out_the_prompts(tmp_path):
    drawn = [
        ids(prepare(one_source(tmp_path / "x.jsonl", pairs(90, 90), (30, 30, 30), seed=s)), "test")
        for s in (0, 1)
    ]
    assert drawn[0] != drawn[1]


def test_fewer_rows_are_a_part_of_more_and_the_seed_draws_them(tmp_path):
    rows = {name: pairs(80, 80) for name in SPLITS}

    def weak(size: int, seed: int = 0) -> set[str]:
        data = given_splits(tmp_path, rows, sizes={"weak": size}, seed=seed)
        return set(ids(prepare(data), "weak"))

    assert weak(10) < weak(30) < weak(100) == weak(80)
    assert weak(30) != weak(30, seed=1)


def test_a_and_b_are_drawn_by_seed_and_row(tmp_path):
    rows = {name: pairs(400, 400) for name in SPLITS}
    first = prepare(given_splits(tmp_path, rows)).tables["weak"]
    second = prepare(given_splits(tmp_path, rows, seed=1)).tables["weak"]
    assert first["row_id"] == second["row_id"]
    assert first["label"] != second["label"]
    assert 150 < sum(first["label"].to_pylist()) < 250
    half = {name: part[:200] for name, part in rows.items()}
    fewer = prepare(given_splits(tmp_path, half)).tables["weak"].to_pylist()
    assert [row for row in first.to_pylist() if row["row_id"] in {r["row_id"] for r in fewer}] == (
        fewer
    )


def test_equal_rows_get_ids_of_their_own(tmp_path):
    rows = pairs(3, 3)
    prepared = prepare(given_splits(tmp_path, {**dict.fromkeys(SPLITS, rows), "weak": rows * 2}))
    once, twice = ids(prepared, "test"), ids(prepared, "weak")
    assert twice == sorted(once + [f"{row_id}-2" for row_id in once])
    assert all(len(row_id) == 16 for row_id in once)
    assert prepared.report["read"]["weak"]["duplicates"] == 3
    assert prepared.report["read"]["test"]["duplicates"] == 0


def test_what_cannot_be_used_is_counted_by_reason(tmp_path):
    good = pairs(10, 10)
    bad: Rows = [
        {"prompt": "p", "chosen": "", "rejected": "b"},
        {"prompt": "p", "chosen": "a", "rejected": "a"},
        {"prompt": "q", "chosen": "a", "rejected": "a"},
        {"prompt": "p", "chosen": "a \ud83d", "rejected": "b"},
        {"prompt": "\ud83d", "chosen": "a", "rejected": "b"},
    ]
    prepared = prepare(given_splits(tmp_path, {**dict.fromkeys(SPLITS, good), "weak": good + bad}))
    assert prepared.report["read"]["weak"] == {
        "rows": 15,
        "usable": 10,
        "unusable": {"chosen equals rejected": 2, "empty answer": 1, "not valid Unicode": 2},
        "notes": {},
        "duplicates": 0,
        "contradictions": 0,
    }
    assert json.loads(json.dumps(prepared.report)) == prepared.report


def test_prompts_in_two_given_splits_are_reported_by_pair(tmp_path):
    rows = {"ground_truth": pairs(10, 10), "weak": pairs(8, 4), "test": pairs(20, 20)[10:]}
    overlap = prepare(given_splits(tmp_path, rows)).report["overlap"]
    assert overlap == {
        "ground_truth, weak": {"prompts": 4, "rows": 8, "share": 1.0},
        "ground_truth, test": {"prompts": 0, "rows": 0, "share": 0.0},
        "weak, test": {"prompts": 0, "rows": 0, "share": 0.0},
        "any": {"prompts": 4, "share": 0.2},
    }


def test_the_length_baseline_is_that_of_the_shorter_answer(tmp_path):
    def share(test: list[tuple[str, str]]) -> float:
        rows = [
            {"prompt": f"{i}", "chosen": chosen, "rejected": rejected}
            for i, (chosen, rejected) in enumerate(test)
        ]
        data = given_splits(tmp_path, {**dict.fromkeys(SPLITS, pairs(5, 5)), "test": rows})
        accuracy = prepare(data).report["shorter_answer_accuracy"]
        assert isinstance(accuracy, float)
        return accuracy

    assert share([("a", "bb")] * 7) == 1.0
    assert share([("aa", "b")] * 7) == 0.0
    assert share([("a", "b")] * 7) == 0.5
    assert share([("a", "bb")] * 3 + [("aa", "b")]) == 0.75


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ((10, 10, 11), "30 of 33 rows are usable, 2 empty answer, 1 chosen equals rejected, with"),
        (
            (31, 1, 1),
            "30 different prompts; sizes require ground_truth 31, weak 1, test 1, and no prompt",
        ),
    ],
)
def test_too_few_rows_are_refused_and_say_why(tmp_path, sizes, told):
    rows = pairs(30, 30) + [{"prompt": "p", "chosen": "", "rejected": str(i)} for i in range(2)]
    rows.append({"prompt": "p", "chosen": "a", "rejected": "a"})
    with pytest.raises(InputError) as error:
        prepare(one_source(tmp_path / "x.jsonl", rows, sizes))
    assert told in str(error.value)
    assert "x.jsonl: too few rows" in str(error.value)


def test_few_prompts_cannot_fill_three_splits(tmp_path):
    with pytest.raises(InputError, match="2 different prompts"):
        prepare(one_source(tmp_path / "x.jsonl", pairs(30, 2), (1, 1, 1)))


def test_a_split_without_a_usable_row_is_refused(tmp_path):
    rows = {**dict.fromkeys(SPLITS, pairs(5, 5)), "weak": []}
    with pytest.raises(InputError, match=r"weak\.jsonl: 0 of 0 rows are usable"):
        prepare(given_splits(tmp_path, rows))
    files = {split: [save(tmp_path / f"{split}{n}.jsonl", []) for n in (1, 2)] for split in SPLITS}
    with pytest.raises(InputError, match=r"truth1\.jsonl, /.*truth2\.jsonl: 0 of 0 rows"):
        prepare(DataSpec.model_validate({"kind": "preference", "splits": files}))


def test_texts_of_one_source_are_dealt_out_with_their_classes(tmp_path):
    rows = [{"text": f"text {n // 2}", "label": ("no", "yes")[n % 2]} for n in range(60)]
    data = one_source(tmp_path / "x.jsonl", rows, (10, 10, 10), kind="classification")
    prepared = prepare(data)
    texts = []
    for split in SPLITS:
        table = prepared.tables[split]
        texts.append({text for (text,) in table["answers"].to_pylist()})
        assert table["prompt"].to_pylist() == [""] * 10
        classes = {f"{row['answers'][0]}, {row['label']}" for row in table.to_pylist()}
        assert classes == {f"{text}, {label}" for text in texts[-1] for label in (0, 1)}
    assert len(set.union(*texts)) == sum(map(len, texts)) == 15, "rows of one text stay together"
    assert prepared.report["overlap"] == {} and prepared.report["classes"] == ["no", "yes"]


def test_splits_made_of_one_source_have_no_overlap_to_report(tmp_path):
    data = one_source(tmp_path / "x.jsonl", pairs(30, 10), (5, 5, 5))
    assert prepare(data).report["overlap"] == {}


def test_answers_of_nothing_but_spaces_are_counted(tmp_path):
    rows = pairs(6, 6)
    rows[0]["chosen"], rows[1]["rejected"] = "  ", "\n"
    report = prepare(given_splits(tmp_path, {**dict.fromkeys(SPLITS, pairs(4, 4)), "weak": rows}))
    described = report.report["splits"]
    assert [described[split]["blank_answers"] for split in SPLITS] == [0, 2, 0]
    assert [described[split]["rows"] for split in SPLITS] == [4, 6, 4]


@pytest.mark.parametrize(
    ("kind", "row", "told"),
    [
        ("preference", {"chosen": "a"}, "field 'rejected' is missing"),
        ("classification", {"text": "a"}, "field 'label' is missing"),
        ("classification", {"text": "a", "label": "7"}, "label 'yes' among integers such as 7 "),
    ],
)
def test_a_row_at_fault_is_told_with_file_and_line(tmp_path, kind, row, told):
    good: Rows = (
        pairs(2, 2)
        if kind == "preference"
        else [{"text": "t", "label": "yes"}, {"text": "u", "label": "yes"}]
    )
    rows = {**dict.fromkeys(SPLITS, good), "weak": [*good, row]}
    with pytest.raises(InputError) as error:
        prepare(given_splits(tmp_path, rows, kind=kind))
    assert told in str(error.value)
    assert f"{tmp_path}/weak.jsonl:3" in str(error.value)


def test_the_form_of_the_spec_reaches_the_rows(tmp_path):
    talk = "\n\nHuman: {0}?\n\nAssistant:"
    rows = [
        {"prompt": "p", "chosen": f"{talk.format(n)} yes", "rejected": f"{talk.format(n)} no"}
        for n in range(9)
    ]
    prompts = {}
    for form in ("auto", "trl"):
        data = given_splits(tmp_path, dict.fromkeys(SPLITS, rows), format=form)
        prompts[form] = set(prepare(data).tables["weak"]["prompt"].to_pylist())
    assert prompts == {"auto": {talk.format(n) for n in range(9)}, "trl": {"p"}}


def test_the_part_of_a_hub_data_set_is_the_one_the_spec_names(monkeypatch):
    asked = []

    def load_dataset(*names: object, **options: object) -> Rows:
        asked.append((names, options))
        return pairs(30, 30)

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    part = {"kind": "preference", "subset": "s", "split": "t", "revision": "r"}
    sizes = dict.fromkeys(SPLITS, 5)
    prepare(DataSpec.model_validate({**part, "source": "hf:a/b", "sizes": sizes}))
    prepare(
        DataSpec.model_validate({**part, "splits": {name: [f"hf:a/{name}"] for name in SPLITS}})
    )
    named = [f"a/{name}" for name in ("b", *SPLITS)]
    assert asked == [((name, "s"), {"split": "t", "revision": "r"}) for name in named]


def test_classes_are_those_of_all_splits_together(tmp_path):
    rows = {
        "ground_truth": [{"t": "a", "y": "up"}, {"t": "b", "y": "down"}],
        "weak": [{"t": "c", "y": "up"}, {"t": "d", "y": "up"}],
        "test": [{"t": "e", "y": "level"}, {"t": "f", "y": "down"}],
    }
    columns = {"text": "t", "label": "y"}
    prepared = prepare(given_splits(tmp_path, rows, kind="classification", columns=columns))
    assert (prepared.num_classes, prepared.per_row) == (3, 1)
    assert prepared.report["classes"] == ["down", "level", "up"]
    labels = {
        row["answers"][0]: row["label"]
        for split in SPLITS
        for row in prepared.tables[split].to_pylist()
    }
    assert labels == {"a": 2, "b": 0, "c": 2, "d": 2, "e": 1, "f": 0}
    assert prepared.report["splits"]["weak"]["label_share"] == [0.0, 0.0, 1.0]
    assert prepared.report["splits"]["test"]["label_share"] == [0.5, 0.5, 0.0]
    assert prepared.report["shorter_answer_accuracy"] is None


def test_generated_pairs_say_what_they_show():
    sizes = {"ground_truth": 300, "weak": 200, "test": 100}
    spec = {"kind": "preference", "source": "generate:agreement", "sizes": sizes}
    prepared = prepare(DataSpec.model_validate(spec))
    assert {split: table.num_rows for split, table in prepared.tables.items()} == sizes
    assert Counter(prepared.tables["weak"]["phenomenon"].to_pylist())["verb_of_pronoun"] > 10
    other = prepare(DataSpec.model_validate({**spec, "seed": 1}))
    shared = set(ids(prepared, "weak")) & set(ids(other, "weak"))
    assert len(shared) < 10
