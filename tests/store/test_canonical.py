"""Equal values have one text, different values different texts, and nothing else has any."""

import json
import math
from collections import OrderedDict
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.testing.calls import calls
from w2s_ray.store.canonical import canonical_json, digest

NAMES = st.text(st.characters(codec="utf-8"), max_size=8)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | NAMES
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4)
)


def typed(value: Any) -> Any:
    """A form in which 1, 1.0 and True differ, and the order of keys does not count."""
    if isinstance(value, dict):
        return ("dict", frozenset((name, typed(inner)) for name, inner in value.items()))
    if isinstance(value, list | tuple):
        return ("list", tuple(map(typed, value)))
    return (type(value).__name__, value)


def reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: reordered(inner) for name, inner in reversed(value.items())}
    if isinstance(value, list):
        return tuple(map(reordered, value))
    return value


@given(VALUES)
def test_the_text_gives_the_value_back_so_no_two_values_share_one(value: Any) -> None:
    assert typed(json.loads(canonical_json(value))) == typed(value)


@given(VALUES, VALUES)
def test_equal_values_are_exactly_those_with_equal_text(left: Any, right: Any) -> None:
    assert (canonical_json(left) == canonical_json(right)) == (typed(left) == typed(right))


@given(VALUES)
def test_order_of_keys_and_kind_of_sequence_do_not_count(value: Any) -> None:
    assert canonical_json(reordered(value)) == canonical_json(value)


def test_numbers_that_compare_equal_but_mean_different_things() -> None:
    assert len({digest(value) for value in (1, 1.0, True, "1", [1], {"1": 1})}) == 6
    assert digest(-0.0) == digest(0.0)
    assert canonical_json(0.1 + 0.2) == "0.30000000000000004"


def test_a_digest_is_the_same_in_every_version() -> None:
    """A changed encoder would orphan every store: this value may never change."""
    value = {"b": [1, 2.5e-7, None, True], "a": {"é": "\n", "": -0.0}}
    assert canonical_json(value) == '{"a":{"":0.0,"\\u00e9":"\\n"},"b":[1,2.5e-07,null,true]}'
    assert digest(value) == "02598693a456435e21ce"


class Loss(StrEnum):
    KL = "forward_kl"


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [1, math.nan]}, "a[1]"),
        ({"a": {"b": -math.inf}}, "a.b"),
        ({"a": {1: 2}}, "a"),
        ({"a": {True: 2}}, "a"),
        ({"a": {None: 2}}, "a"),
        ({"a": {1, 2}}, "a"),
        ([b"x"], "[0]"),
        ({"rate": np.float64(1e-5)}, "rate"),
        ({"rate": np.int64(1)}, "rate"),
        ({"loss": Loss.KL}, "loss"),
        ({"path": Path("x")}, "path"),
        ({"a": OrderedDict()}, "a"),
        ({"a": "\ud83d\ude00"}, "a"),
        ({"\ud83d": 1}, "\ud83d"),
        (object(), "value"),
        (len, "value"),
    ],
)
def test_what_has_no_stable_text_is_refused_by_its_path(value: Any, path: str) -> None:
    with pytest.raises(TypeError) as refusal:
        canonical_json(value)
    assert str(refusal.value).startswith(f"{path}: ")


def test_a_key_takes_few_calls() -> None:
    configs = [
        {"loss": "forward_kl", "rate": 1e-5 * n, "seed": n, "inputs": {"weak": "a" * 20}}
        for n in range(100)
    ]
    keys: set[str] = set()
    assert calls(lambda: keys.update(map(digest, configs))) < 100 * 100
    assert len(keys) == len(configs)
