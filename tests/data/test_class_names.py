"""Labels that stand for "no label", classes that look alike, rows that contradict each other."""

import json
from typing import Any

import pytest

from w2s_ray.data.class_names import look_alikes, stand_ins
from w2s_ray.data.prepare import SPLITS, Prepared, prepare
from w2s_ray.data.sources import data_identity
from w2s_ray.errors import InputError
from w2s_ray.spec.schema import DataSpec

Rows = list[dict[str, Any]]


def texts(split: str, labels: list[Any]) -> Rows:
    return [{"text": f"{split} {n}", "label": label} for n, label in enumerate(labels)]


def given(folder: Any, labels: dict[str, list[Any]], **more: Any) -> DataSpec:
    splits = {}
    for split in SPLITS:
        rows = texts(split, labels.get(split, [0, 1, 0, 1]))
        path = folder / f"{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        splits[split] = [str(path)]
    return DataSpec.model_validate({"kind": "classification", "splits": splits, **more})


def unlabelled(prepared: Prepared) -> dict[str, dict[str, int]]:
    return {split: prepared.report["read"][split]["unusable"] for split in SPLITS}


@pytest.mark.parametrize(
    ("labels", "removed"),
    [
        ([{"0", "1"}, {"0", "1"}, {"-1"}], ["-1"]),  # secret test labels
        ([{"a", "b"}, {"-1"}], []),  # texts and integers are refused elsewhere
        ([{"-1", "0", "1", "2"}], ["-1"]),
        ([{"-1", "1", "2", "3"}], ["-1"]),
        ([{"-100", "0", "1"}], ["-100"]),
        ([{"-1", "1"}], []),
        ([{"-2", "-1", "0", "1", "2"}], []),
        ([{"0", "1"}], []),
    ],
)
def test_numbers_that_stand_for_no_label(labels, removed):
    first_rows = {label: f"x:{label}" for of in labels for label in sorted(of)}
    assert stand_ins(first_rows, labels, None) == removed
    assert stand_ins(first_rows, labels, ()) == []
    assert stand_ins(first_rows, labels, ("1", "9")) == (["1"] if "1" in first_rows else [])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, -1, 0], "label '-1' beside 0, 1 may be a class or stand for no label"),
        (["up", "nan", "down"], "label 'nan' is how a missing value is often written"),
        (["up", "N/A", "down"], "label 'N/A' is how"),
    ],
)
def test_an_unclear_label_is_refused_with_its_line_until_the_spec_decides(
    tmp_path, labels, message
):
    sure = [label for label in labels if label not in (-1, "nan", "N/A")]
    of_splits = {"ground_truth": sure, "test": sure}
    of_splits["weak"] = labels
    with pytest.raises(InputError) as error:
        prepare(given(tmp_path, of_splits))
    line = 3 if -1 in labels else 2
    assert str(error.value).startswith(f"{tmp_path}/weak.jsonl:{line}: {message}")
    assert "no_label" in str(error.value)
    label = labels[line - 1]
    out = prepare(given(tmp_path, of_splits, no_label=label))
    assert unlabelled(out)["weak"] == {f"no label ({label})": 1} and out.num_classes == 2
    kept = prepare(given(tmp_path, of_splits, no_label=[]))
    assert kept.report["classes"] == sorted({str(x) for x in labels})
    assert kept.report["absent_classes"] == {"ground_truth": [str(label)], "test": [str(label)]}


def test_rows_of_a_split_without_labels_are_counted_and_refused(tmp_path):
    with pytest.raises(InputError, match=r"test\.jsonl: 0 of 5 rows are usable, 5 no label \(-1\)"):
        prepare(given(tmp_path, {"test": [-1] * 5}))
    some = prepare(given(tmp_path, {"weak": [-1, 0, 1, 2, 2]}))
    assert unlabelled(some)["weak"] == {"no label (-1)": 1}
    assert some.report["classes"] == ["0", "1", "2"]
    assert some.report["splits"]["weak"]["rows"] == 4


@pytest.mark.parametrize("label", [None, "", "  ", float("nan")])
def test_an_empty_label_is_refused_or_counted_as_the_spec_says(tmp_path, label):
    with pytest.raises(InputError, match=r"weak\.jsonl:2: field 'label' has no value; no_label"):
        prepare(given(tmp_path, {"weak": [0, label, 1]}))
    out = prepare(given(tmp_path, {"weak": [0, label, 1]}, no_label=[None]))
    assert unlabelled(out)["weak"] == {"no label": 1}


def test_what_means_no_label_is_in_the_key_only_where_it_is_given(tmp_path):
    plain, empty, some = (
        data_identity(given(tmp_path, {}, **more))
        for more in ({}, {"no_label": []}, {"no_label": [-1, ""]})
    )
    assert "no_label" not in plain
    assert (empty["no_label"], some["no_label"]) == ([], ["", "-1"])
    with pytest.raises(ValueError, match="no no_label with kind: preference"):
        DataSpec.model_validate(
            {**given(tmp_path, {}).model_dump(), "kind": "preference", "no_label": [-1]}
        )


def test_names_that_look_alike():
    names = ["calm", "Calm ", "1", "01", "not_ok", "not ok", "loud", "\uff4coud", "-1", "a\u200bb"]
    assert look_alikes(names) == [
        ["calm", "Calm "], ["1", "01"], ["not_ok", "not ok"], ["loud", "\uff4coud"],
    ]  # fmt: skip


def test_the_order_of_classes_does_not_depend_on_files(tmp_path):
    labels = [["1", "01", "2"], ["01", "2", "1"], ["2", "1", "01"]]
    orders = []
    for turn in range(3):
        of_splits = dict(zip(SPLITS, labels[turn:] + labels[:turn], strict=True))
        report = prepare(given(tmp_path, of_splits)).report
        orders.append(report["classes"])
        assert report["look_alikes"] == [["01", "1"]]
    assert orders == [["01", "1", "2"]] * 3


def test_rows_that_contradict_each_other_are_counted_where_they_are(tmp_path):
    data = given(tmp_path, {})
    for split, label in (("ground_truth", 1), ("test", 0)):
        with open(tmp_path / f"{split}.jsonl", "a") as file:
            file.write(json.dumps({"text": "the same", "label": label}) + "\n")
    report = prepare(data).report
    assert [report["read"][split]["contradictions"] for split in SPLITS] == [1, 0, 1]
    assert report["shared_texts"] == {
        "ground_truth, weak": 0, "ground_truth, test": 1, "weak, test": 0,
    }  # fmt: skip


def test_pairs_both_ways_round_contradict_each_other(tmp_path):
    rows = [
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {"prompt": "p", "chosen": "b", "rejected": "a"},
        {"prompt": "p", "chosen": "a", "rejected": "c"},
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        *({"prompt": f"{n}", "chosen": "a", "rejected": "b"} for n in range(6)),
    ]
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = {"kind": "preference", "source": str(path), "sizes": dict.fromkeys(SPLITS, 1)}
    read = prepare(DataSpec.model_validate(spec)).report["read"]["source"]
    assert (read["contradictions"], read["duplicates"]) == (2, 1)
