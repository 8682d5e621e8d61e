"""Students on part of the rows: nested, one subset for all seeds, labels as on all rows."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.testing.steps import a_step, config_of
from w2s_ray.contents import read_parquet, write_content
from w2s_ray.data.labels import labels_table
from w2s_ray.plan.configs import Noise
from w2s_ray.steps.targets import Supervision, Targets
from w2s_ray.store.names import SOFT_LABELS

IDS = [f"row {n}" for n in range(60)]
COUNTS = (3, 10, 25, 59, 60)


class Students:
    """Supervisions of students on one table."""

    def __init__(self, folder: Path, classes: int) -> None:
        weak = np.random.default_rng(0).dirichlet(np.ones(classes), len(IDS)).astype(np.float32)
        write_content(folder / SOFT_LABELS, labels_table(pa.chunked_array([pa.array(IDS)]), weak))
        rows = pa.table({"row_id": IDS, "label": pa.array([0] * len(IDS), pa.int64())})
        artifact: Any = SimpleNamespace(table=lambda name: read_parquet(folder / name))
        self._targets = Targets(rows, classes, lambda key: {"labels": artifact}[key])

    def on(self, train_rows: int | None, seed: int = 0) -> Supervision:
        config = replace(
            config_of("student"), train_rows=train_rows, seed=seed, noise=Noise(0.3, -1.0)
        )
        step = replace(a_step("student", "s"), config=config, inputs={"label": "labels"})
        return self._targets.of(step)


@pytest.mark.parametrize("classes", [2, 5])
def test_subsets_are_nested_and_a_row_has_one_label_in_all_of_them(
    tmp_path: Path, classes: int
) -> None:
    students = Students(tmp_path, classes)
    whole, smaller = students.on(None), students.on(COUNTS[0])
    for count in COUNTS:
        part = students.on(count)
        assert len(part.rows) == len(part.soft_labels) == count
        assert (np.diff(part.rows) > 0).all(), "in the order of the table"
        assert set(smaller.rows) <= set(part.rows)
        np.testing.assert_array_equal(part.soft_labels, whole.soft_labels[part.rows])
        smaller = part


def test_the_seed_changes_labels_by_noise_but_not_the_rows(tmp_path: Path) -> None:
    students = Students(tmp_path, 2)
    one, other = students.on(25), students.on(25, seed=1)
    np.testing.assert_array_equal(one.rows, other.rows)
    assert (one.soft_labels != other.soft_labels).any()


def test_as_many_rows_as_there_are_is_no_subset_and_more_are_refused(tmp_path: Path) -> None:
    students = Students(tmp_path, 2)
    whole, all_rows = students.on(None), students.on(60)
    assert whole.rows is all_rows.rows and whole.soft_labels is all_rows.soft_labels
    with pytest.raises(ValueError, match="train_rows: given 61, expected at most 60, the rows"):
        students.on(61)
