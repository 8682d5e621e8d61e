"""A field that came after its kind moves no key where it is absent."""

from dataclasses import replace
from typing import Any

import pytest

from tests.testing.steps import config_of
from w2s_ray.plan.configs import (
    ABSENT_MEANS,
    Config,
    LabelTreatment,
    PrepareConfig,
    StudentConfig,
    Training,
)

# A configuration with another value of each field that may be absent.
OTHER: dict[str, Any] = {
    "identical_pairs": lambda student: replace(
        student, training=replace(student.training, identical_pairs="keep")
    ),
    "label_temperature": lambda student: replace(student, labels=LabelTreatment(0.5)),
    "shuffled_labels": lambda student: replace(student, labels=LabelTreatment(shuffled=True)),
    "messages": lambda student: PrepareConfig({}, messages=True),
}


def names(values: Any) -> set[str]:
    """The names at every depth."""
    if not isinstance(values, dict):
        return set()
    return set(values) | {name for inner in values.values() for name in names(inner)}


@pytest.mark.parametrize("field", ABSENT_MEANS)
def test_a_field_is_in_the_key_only_where_it_says_something(field: str) -> None:
    student = config_of("student")
    other: Config = OTHER[field](student)
    assert field in names(other.as_json())
    assert field not in names(student.as_json()) | names(PrepareConfig({}).as_json())


def test_a_record_without_a_field_is_read_with_what_its_absence_means() -> None:
    student = config_of("student")
    assert isinstance(student, StudentConfig)
    assert Training.from_json(student.training.as_json()) == student.training
