"""A mistake that only the plan can see names its place in the spec."""

from pathlib import Path
from typing import Any

import pytest

from tests.testing.specs import TINY_MODEL, tiny_config, tiny_spec
from w2s_ray.errors import InputError
from w2s_ray.plan.build import build
from w2s_ray.spec.schema import Spec


def place(**changes: Any) -> tuple[int | str, ...]:
    spec = Spec.model_validate(tiny_spec(**changes))
    with pytest.raises(InputError) as error:
        build(spec)
    return error.value.place


def test_places(tmp_path: Path) -> None:
    small = {**TINY_MODEL, "config": tiny_config(16)}
    broken = {"small": small, "large": {"source": str(tmp_path)}}
    assert place(models=broken) == ("models", "large")
    empty = {"kind": "classification", "source": str(tmp_path)}
    sizes = {"ground_truth": 1, "weak": 1, "test": 1}
    assert place(data={"texts": {**empty, "sizes": sizes}}) == ("data", "texts")
    assert place(training__max_length_tokens=257) == ("training", "max_length_tokens")
    three = dict.fromkeys(("a", "b", "c"), small)
    assert place(models=three, grid__pair=[["a", "b"], ["a", "c"]]) == ("grid",)
