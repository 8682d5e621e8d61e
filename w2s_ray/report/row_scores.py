"""Scores of single test rows, from the table ``predictions`` of a study.

Each model is one row group of that table and is read when it is asked for. All models of a data set
must have been scored on the same rows in the same order: that is checked, since every paired
comparison rests on it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from w2s_ray.errors import InputError
from w2s_ray.statistics.decomposition import Array, group_indices
from w2s_ray.statistics.recalibration import halves
from w2s_ray.store.artifacts import Store
from w2s_ray.store.names import predictions_file
from w2s_ray.store.predictions import models_written

_OF_ROWS = ("row_id", "label", "prompt_id")
FEWEST_INDEPENDENT = 2  # independent ones, of an interval
ROUNDING = 1e-9  # of an accuracy


@dataclass(frozen=True)
class TestRows:
    """The test rows of a data set.

    Attributes:
        row_ids: (n,) string.
        labels: (n,) true classes.
        prompt_ids: (n,) digests of the prompts.
        classes: K.
    """

    __test__ = False  # not a test, whatever pytest makes of the name

    row_ids: pa.ChunkedArray
    labels: NDArray[np.int64]
    prompt_ids: pa.ChunkedArray
    classes: int

    @cached_property
    def groups(self) -> NDArray[np.int64] | None:
        """(n,) the index of each row's prompt; None where every row has its own."""
        return group_indices(self.prompt_ids.to_pylist())

    @cached_property
    def halves(self) -> NDArray[np.bool_]:
        """(n,) which half a row belongs to when probabilities are recalibrated."""
        return halves(self.row_ids.to_pylist())


@dataclass
class RowScores:
    """The scores of a study's models on their test rows.

    Attributes:
        study: its name.
    """

    study: str
    _file: parquet.ParquetFile
    _row_groups: dict[str, int]
    _rows: dict[str, TestRows] = field(default_factory=dict)
    _right: dict[str, Array] = field(default_factory=dict)

    def has(self, key: str) -> bool:
        """Whether the model is in the table: one that is not finished is not."""
        return key in self._row_groups

    def rows(self, data: str) -> TestRows:
        """The test rows of a data set, once one of its models was read."""
        return self._rows[data]

    def right(self, key: str, data: str) -> Array:
        """(n,) whether the model is right on each row: 1, 0, or its share of a tie.

        Args:
            data: name of the model's data set.

        Raises:
            InputError: the model was scored on other rows than the others of the data set, there
                are too few of them, or a probability is not finite.
        """
        if key not in self._right:
            probs = self.probs(key, data)
            labels = self._rows[data].labels
            of = _right_of_two if probs.shape[1] == 2 else _right
            self._right[key] = of(probs, labels)
        return self._right[key]

    def check(self, key: str, data: str, accuracy: float | None) -> None:
        """Compares the model's scores with its accuracy in ``results``.

        Raises:
            InputError: they differ, so the table was edited or damaged.
        """
        found = float(self.right(key, data).mean())
        if accuracy is not None and abs(found - accuracy) > ROUNDING:
            raise InputError(
                f"study {self.study!r}: by its predictions model {key} has the accuracy "
                f"{found:.6f}, expected {accuracy:.6f} as in its record; the predictions were "
                "edited or damaged: run the study again, which writes them anew"
            )

    def probs(self, key: str, data: str, *, exact: bool = False) -> Array:
        """(n, K) probabilities of the model; other arguments and errors as of ``right``.

        Args:
            exact: all as they are stored; else the first of two classes is 1 less the other, which
                is 0 where it is below 1e-16.
        """
        group, known = self._row_groups[key], self._rows.get(data)
        # Of two classes one column says all, and is read four times as fast as the lists.
        is_one = known is not None and known.classes == 2 and not exact
        column = "prob" if is_one else "probs"
        columns = ["row_id", column] if known is not None else [*_OF_ROWS, column]
        table = self._file.read_row_group(group, columns=columns, use_threads=False)
        if known is None:
            self._rows[data] = self._test_rows(table, data)
        elif not table["row_id"].equals(known.row_ids):
            raise InputError(
                f"study {self.study!r}: model {key} was scored on other test rows than the first "
                f"one of data {data!r}, expected the same rows in the same order"
            )
        probs: Array
        if column == "prob":
            of_one = table[column].to_numpy()
            probs = np.column_stack([1.0 - of_one, of_one])
        else:
            flat = table[column].combine_chunks().flatten().to_numpy()
            probs = flat.reshape(table.num_rows, -1)
        if not np.isfinite(probs).all():
            raise InputError(
                f"study {self.study!r}: a prediction of model {key} is not a finite number, "
                "expected probabilities"
            )
        return probs

    def _test_rows(self, table: pa.Table, data: str) -> TestRows:
        """The rows of a data set, from the table of one of its models."""
        prompts = table["prompt_id"]
        if len(prompts.unique()) < FEWEST_INDEPENDENT:
            raise InputError(
                f"study {self.study!r}: data {data!r} has {len(prompts.unique())} independent test "
                f"row, expected at least {FEWEST_INDEPENDENT} for an interval"
            )
        classes = len(table["probs"][0])
        return TestRows(table["row_id"], table["label"].to_numpy(), prompts, classes)


def _right(probs: Array, labels: NDArray[np.int64]) -> Array:
    """(n,) the share of a row's label among the classes with the highest probability."""
    tops = probs == probs.max(axis=1, keepdims=True)
    shares: Array = tops[np.arange(len(tops)), labels] / tops.sum(axis=1)
    return shares


def _right_of_two(probs: Array, labels: NDArray[np.int64]) -> Array:
    """As ``_right``, several times as fast: maxima over so short an axis are slow."""
    difference = np.where(labels == 1, probs[:, 1] - probs[:, 0], probs[:, 0] - probs[:, 1])
    return 0.5 + 0.5 * np.sign(difference)


@contextmanager
def row_scores(store: Store, study: str) -> Iterator[RowScores]:
    """The scores of a study, while its table is open.

    Raises:
        InputError: there is no such table, or one of another version.
    """
    models = models_written(store, study)
    if models is None:
        raise InputError(
            f"study {study!r}: {store.location(predictions_file(study))} is missing or of another "
            "version, or the predictions were edited or damaged: run the study again, which writes "
            "them anew without computing"
        )
    row_groups = {key: index for index, (_, key) in reversed(list(enumerate(models)))}
    with store.open_file(predictions_file(study)) as file:
        yield RowScores(study, parquet.ParquetFile(file), row_groups)
