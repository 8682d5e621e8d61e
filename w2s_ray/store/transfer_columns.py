"""The columns of ``transfer/``, with the types and rules of ``columns``."""

from w2s_ray.store.axis_columns import AXES
from w2s_ray.store.column import INT, REAL, TEXT, Column
from w2s_ray.store.columns import MODEL_ROLES, RESULTS, SCORES
from w2s_ray.store.selection_columns import SELECTION

TRANSFER_SCHEMA_VERSION = 1

_OF_STUDENT_AND_WEAK = (
    *("misfit_forward", "misfit_reverse", "agreement", "error_inheritance", "error_correction"),
    *("new_errors", "blind_spots", "error_phi", "error_kappa"),
)
"""Columns of results that ``TRANSFER`` has too; its test rows are those of the further set."""

_SELECTED = ("selected", "selected_by", "selected_over")

CHOSEN = (
    *(column for column in SELECTION if column.name in _SELECTED),
    Column("ceiling_key", TEXT, "", "key of the ceiling's step"),
)
"""Columns that are those of the cell's row in results: what ``select`` chose."""

TRANSFER = (
    Column("key", TEXT, "", "key of the cell's student step, as in results", nullable=False),
    *AXES,
    Column("test_set", TEXT, "", "name of the further test set, as in the spec", nullable=False),
    Column(
        "status",
        TEXT,
        "",
        "done: the student is scored on the set; failed: reading the set or scoring on it failed; "
        "blocked: the cell itself is not done; pending: not finished yet",
        nullable=False,
    ),
    Column("error", TEXT, "", "one line: why there are no scores, or not all of them"),
    *(
        Column(
            f"{role}_{score.name}",
            REAL,
            score.unit,
            f"the {role} model's {score.description} on the rows of the set",
        )
        for score in SCORES
        for role in MODEL_ROLES
    ),
    Column("test_rows", INT, "examples", "number of rows of the set"),
    Column(
        "trained_on_rows",
        INT,
        "examples",
        "how many of them are in ground_truth or weak of the data set, or share a whole text or a"
        " prompt with a row there",
    ),
    Column("pgr", REAL, "fraction", "performance gap recovered, as in results"),
    Column("gain", REAL, "nat", "weak_cross_entropy - student_cross_entropy"),
    *(column for column in RESULTS if column.name in _OF_STUDENT_AND_WEAK),
    Column("weak_key", TEXT, "", "key of the weak model's step"),
    *CHOSEN,
    Column("test_set_key", TEXT, "", "key of the step that prepared the set"),
    RESULTS[-1],
)
