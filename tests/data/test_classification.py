"""Labelled texts, and the index a label gets."""

from collections import Counter
from decimal import Decimal

import pytest

from w2s_ray.data.classification import Text, class_indices, read_text
from w2s_ray.data.columns import Unusable
from w2s_ray.errors import InputError


@pytest.mark.parametrize(("label", "name"), [(3, "3"), ("3", "3"), (True, "1"), ("pos", "pos")])
def test_a_label_is_known_by_its_name(label, name):
    assert read_text({"text": "t", "label": label}, "x:1", {}) == Text("t", name)


@pytest.mark.parametrize("label", [4.0, Decimal("4.00")])
def test_a_whole_decimal_is_the_integer_it_is_and_the_run_says_so(label):
    notes: Counter[str] = Counter()
    assert read_text({"text": "t", "label": label}, "x:1", {}, notes) == Text("t", "4")
    assert notes == {"labels written as decimals; read as integers": 1}


@pytest.mark.parametrize("label", [0.5, float("inf"), Decimal("4.5"), [4.0]])
def test_any_other_number_or_value_is_no_label(label):
    with pytest.raises(InputError, match=r"x:1: field 'label' is .*; expected an integer or a te"):
        read_text({"text": "t", "label": label}, "x:1", {})


@pytest.mark.parametrize("label", [None, float("nan"), Decimal("nan"), "", " "])
def test_a_missing_label_is_refused_with_the_way_out(label):
    with pytest.raises(InputError) as error:
        read_text({"t": "t", "category": label}, "x:26", {"text": "t", "label": "category"})
    assert str(error.value) == (
        "x:26: field 'category' has no value; no_label: [\"\"] in the data set of the spec leaves "
        "such rows out"
    )


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["1", "0"], {"0": 0, "1": 1}),
        (["10", "-1", "2"], {"-1": 0, "2": 1, "10": 2}),
        (["pos", "neg", "mixed"], {"mixed": 0, "neg": 1, "pos": 2}),
    ],
)
def test_class_indices_are_in_order_of_number_or_alphabet(labels, expected):
    for order in (labels, labels[::-1]):
        assert class_indices(dict.fromkeys(order, "x:1")) == expected


def test_labels_of_two_kinds_and_a_single_class_are_refused():
    with pytest.raises(InputError, match=r"x:9: label 'pos' among integers such as 1 \(x:2\)"):
        class_indices({"1": "x:2", "pos": "x:9"})
    with pytest.raises(InputError, match=r"at least two classes, given '1' \(x:2\)"):
        class_indices({"1": "x:2"})
    with pytest.raises(InputError, match="at least two classes, given none"):
        class_indices({})


def test_rows_of_another_form_are_refused_and_empty_ones_told():
    with pytest.raises(InputError, match=r"x:1: field 'label' is 0\.5; expected an integer"):
        read_text({"text": "t", "label": 0.5}, "x:1", {})
    with pytest.raises(InputError, match=r"x:1: field 'text' is 5; expected a text"):
        read_text({"text": 5, "label": 0}, "x:1", {})
    with pytest.raises(InputError, match="did you mean 'labels'"):
        read_text({"text": "t", "labels": 0}, "x:1", {})
    assert read_text({"text": "", "label": 0}, "x:1", {}) == Unusable("empty text")


def test_messages_name_the_place_and_the_column_of_the_file():
    renamed = {"text": "t", "label": "y"}
    for row, told in (
        (
            {"t": 5, "y": 0},
            "x:1: field 't' is 5; expected a text or a list of {role, content}",
        ),
        ({"t": "a", "y": 0.5}, "x:1: field 'y' is 0.5; expected an integer or a text"),
        ({"y": 0}, "x:1: field 't' is missing; the row has y"),
        ({"t": "a"}, "x:1: field 'y' is missing; the row has t"),
    ):
        with pytest.raises(InputError) as error:
            read_text(row, "x:1", renamed)
        assert str(error.value) == told


def test_a_csv_without_names_of_columns_is_recognised_as_a_possibility():
    row = {"great film": "a", "1": "0"}
    with pytest.raises(InputError) as error:
        read_text(row, "films.csv:2", {})
    assert str(error.value) == (
        "films.csv:2: field 'text' is missing; the row has great film, 1; is the first line one "
        "with the names of the columns? If so, to read another column, set columns: {text: NAME} "
        "in the spec"
    )
    with pytest.raises(InputError) as error:
        read_text(row, "films.jsonl:2", {})
    assert "first line" not in str(error.value)
