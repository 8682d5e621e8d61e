"""The columns of ``transfer/``, with the types and rules of ``columns``."""

import pyarrow as pa

from w2s_ray.store.columns import AXES, MODEL_ROLES, RESULTS, SCORES, Column

TRANSFER_SCHEMA_VERSION = 1

_TEXT, _INT, _REAL = pa.string(), pa.int64(), pa.float64()

_OF_STUDENT_AND_WEAK = (
    *("misfit_forward", "misfit_reverse", "agreement", "error_inheritance", "error_correction"),
    *("new_errors", "blind_spots", "error_phi", "error_kappa"),
)
"""Columns of results that ``TRANSFER`` has too; its test rows are those of the further set."""

TRANSFER = (
    Column("key", _TEXT, "", "key of the cell's student step, as in results", nullable=False),
    *AXES,
    Column("test_set", _TEXT, "", "name of the further test set, as in the spec", nullable=False),
    Column(
        "status",
        _TEXT,
        "",
        "done: the student is scored on the set; failed: reading the set or scoring on it failed; "
        "blocked: the cell itself is not done; pending: not finished yet",
        nullable=False,
    ),
    Column("error", _TEXT, "", "one line: why there are no scores, or not all of them"),
    *(
        Column(
            f"{role}_{score.name}",
            _REAL,
            score.unit,
            f"the {role} model's {score.description} on the rows of the set",
        )
        for score in SCORES
        for role in MODEL_ROLES
    ),
    Column("test_rows", _INT, "examples", "number of rows of the set"),
    Column(
        "trained_on_rows",
        _INT,
        "examples",
        "how many of them are in ground_truth or weak of the data set, or share a whole text or a"
        " prompt with a row there",
    ),
    Column("pgr", _REAL, "fraction", "performance gap recovered, as in results"),
    Column("gain", _REAL, "nat", "weak_cross_entropy - student_cross_entropy"),
    *(column for column in RESULTS if column.name in _OF_STUDENT_AND_WEAK),
    Column("weak_key", _TEXT, "", "key of the weak model's step"),
    Column("ceiling_key", _TEXT, "", "key of the ceiling's step"),
    Column("test_set_key", _TEXT, "", "key of the step that prepared the set"),
    RESULTS[-1],
)
