"""JSON that is nested deep, or holds absurd numbers, is one line."""

import json

import pytest

from w2s_ray.errors import InputError
from w2s_ray.foreign.json_text import parse_json
from w2s_ray.foreign.limits import limit

DEPTH = limit("json.depth")


@pytest.mark.parametrize("bracket", ["[]", '{"a":}'])
@pytest.mark.parametrize("depth", [DEPTH + 1, 1_000, 200_000])
def test_deep_nesting_is_one_line(bracket: str, depth: int) -> None:
    opening, closing = bracket[:-1], bracket[-1]
    with pytest.raises(InputError, match=rf"^file: given more than {DEPTH} levels, expected"):
        parse_json(opening * depth + "1" + closing * depth, "file")


def test_what_is_as_deep_as_the_limit_is_read() -> None:
    text = "[" * DEPTH + "]" * DEPTH
    assert json.dumps(parse_json(text, "file")) == text


def test_an_integer_of_absurd_length_is_one_line() -> None:
    with pytest.raises(InputError, match=r"^file: .*digits"):
        parse_json("9" * 5_000, "file")


def test_what_is_no_json_stays_the_callers_to_word() -> None:
    with pytest.raises(json.JSONDecodeError):
        parse_json("{", "file")
