"""Arrays of JSON objects are the rows that ``json.loads`` gives, each with its line."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2s_ray.data import json_arrays
from w2s_ray.data.json_arrays import rows_of_array
from w2s_ray.errors import InputError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


def read(content: bytes) -> list[tuple[str, dict[str, object]]]:
    return list(rows_of_array("x.json", io.BytesIO(content)))


@given(
    st.lists(st.dictionaries(st.text(max_size=4), VALUES, max_size=4), max_size=5),
    st.sampled_from([None, 1]),
    st.booleans(),
    st.integers(1, 9),
)
def test_an_array_in_blocks_of_any_size_is_the_array(rows, indent, mark, block):
    content = json.dumps(rows, indent=indent, ensure_ascii=False).encode("utf-8", "replace")
    json_arrays._BLOCK, before = block, json_arrays._BLOCK
    try:
        parsed = read(b"\xef\xbb\xbf" * mark + b" \n" * mark + content)
    finally:
        json_arrays._BLOCK = before
    assert [row for _, row in parsed] == json.loads(content)


def test_each_row_has_the_line_of_its_beginning():
    content = b'[\n {"a": "x\\n"},\n\n {"a":\n  2}, {"a": 3}\n]\n'
    assert [where for where, _ in read(content)] == ["x.json:2", "x.json:4", "x.json:5"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'[{"a": 1},\n 2]', "x.json:2: expected a JSON object in the array, given '2'"),
        (b'[{"a": 1},\n]', "x.json:2: expected a JSON object after ',', given ']'"),
        (b'[{"a": 1}\n {"a": 1}]', "x.json:2: expected ',' or ']' after an object, given '{'"),
        (b'[{"a": 1}', "x.json:1: expected ',' or ']' after an object, given the end of the file"),
        (b"[", "x.json:1: expected a JSON object in the array, given the end of the file"),
        (b'[]\n{"a": 1}', "x.json:2: expected the end of the file after the array, given '{'"),
        (b'[{"a": 1},\n {"a":\n x}]', "x.json:3: expected an array of objects: Expecting value"),
        (b'[{"a": "\xff"}]', "x.json:1: expected text in UTF-8, given the byte 0xff"),
        (b'[{"a":' + b"[" * 200_000, "x.json:1: expected an array of objects: "),
    ],
)
def test_a_broken_array_is_refused_with_its_line(content, told):
    with pytest.raises(InputError) as error:
        read(content)
    assert str(error.value).startswith(told)
    assert "\n" not in str(error.value)
