"""A field that came after its kind moves no key where it is absent."""

from dataclasses import replace
from typing import Any

import pytest

from tests.testing.steps import config_of
from w2s_ray.plan.absent import ABSENT_MEANS
from w2s_ray.plan.configs import (
    Config,
    EvaluateConfig,
    FeaturesConfig,
    LabelConfig,
    LabelTreatment,
    PrepareConfig,
    StudentConfig,
    Training,
    WeakConfig,
)

# A configuration with another value of each field that may be absent.
OTHER: dict[str, Any] = {
    "evaluations": lambda student: replace(
        student, training=replace(student.training, evaluations=6)
    ),
    "calibrate": lambda student: LabelConfig("temperature"),
    "example_weight": lambda student: replace(
        student, labels=LabelTreatment(example_weight="confidence")
    ),
    "held_out": lambda student: WeakConfig({}, student.training, 0, 0.1),
    "anchor": lambda student: replace(student, anchor=0.5),
    "identical_pairs": lambda student: replace(
        student, training=replace(student.training, identical_pairs="keep")
    ),
    "label_filter": lambda student: replace(
        student, labels=LabelTreatment(filter_by="probe", keep=0.5)
    ),
    "label_neighbours": lambda student: replace(
        student, labels=LabelTreatment(relabel="knn", neighbours=5)
    ),
    "label_temperature": lambda student: replace(student, labels=LabelTreatment(0.5)),
    "shuffled_labels": lambda student: replace(student, labels=LabelTreatment(shuffled=True)),
    "messages": lambda student: PrepareConfig({}, messages=True),
    "step_by": lambda student: EvaluateConfig(1e-3, step_by="weak_ce"),
    "validation_rows": lambda student: replace(student, validation_rows=500),
    "relabel": lambda student: replace(student, labels=LabelTreatment(relabel="probe")),
    "readout_block": lambda student: FeaturesConfig({}, "fp32", 8, readout_block=1),
    "train_rows": lambda student: replace(student, train_rows=5),
    "weight_decay": lambda student: replace(
        student, training=replace(student.training, weight_decay=0.1)
    ),
}


def names(values: Any) -> set[str]:
    """The names at every depth."""
    if not isinstance(values, dict):
        return set()
    return set(values) | {name for inner in values.values() for name in names(inner)}


@pytest.mark.parametrize("field", ABSENT_MEANS)
def test_a_field_is_in_the_key_only_where_it_says_something(field: str) -> None:
    student = config_of("student")
    assert isinstance(student, StudentConfig)
    other: Config = OTHER[field](student)
    assert field in names(other.as_json())
    others = (
        PrepareConfig({}),
        LabelConfig(),
        EvaluateConfig(1e-3),
        WeakConfig({}, student.training, 0),
    )
    assert field not in names(student.as_json()).union(*(names(o.as_json()) for o in others))


def test_a_record_without_a_field_is_read_with_what_its_absence_means() -> None:
    student = config_of("student")
    assert isinstance(student, StudentConfig)
    assert Training.from_json(student.training.as_json()) == student.training


def test_neighbours_at_their_default_are_what_absence_means() -> None:
    student = config_of("student")
    assert isinstance(student, StudentConfig)
    by_neighbours = replace(student, labels=LabelTreatment(relabel="knn"))
    assert "label_neighbours" not in names(by_neighbours.as_json())
