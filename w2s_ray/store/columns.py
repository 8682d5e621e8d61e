"""The columns of a study's tables: names, types, units, meaning, version.

Other programs read these tables, so a column is never renamed and its meaning never changes without
a new schema version; columns may be added. ``docs/results.md`` documents the same columns, and a
test compares the two. Any score can be missing; a missing score is null, never 0.
"""

from typing import NamedTuple

import pyarrow as pa

from w2s_ray.store.axis_columns import AXES
from w2s_ray.store.column import FLAG, INT, REAL, TEXT, Column, never_null
from w2s_ray.store.selection_columns import SELECTION

RESULTS_SCHEMA_VERSION = 1
PREDICTIONS_SCHEMA_VERSION = 1

STATUSES = ("done", "failed", "blocked", "pending")
MODEL_ROLES = ("weak", "student", "ceiling")


class Score(NamedTuple):
    """One score of a model on the test rows, and the metric of its evaluation step."""

    name: str
    unit: str
    description: str


SCORES = (
    Score("accuracy", "fraction", "accuracy"),
    Score("auroc", "fraction", "area under the ROC curve"),
    Score("cross_entropy", "nat", "mean cross-entropy with the true labels"),
    Score("calibration_error", "fraction", "expected calibration error"),
    Score(
        "recalibrated_cross_entropy",
        "nat",
        "mean cross-entropy after one temperature, fitted on the other half of the rows,",
    ),
    Score("brier", "", "Brier score Σ (p - y)² over classes, 0 to 2,"),
    Score("entropy", "nat", "mean entropy of its predictions"),
    Score("mean_confidence", "probability", "mean probability of its top class"),
)


_never_null = never_null
_TEXT, _INT, _REAL, _FLAG = TEXT, INT, REAL, FLAG

RESULTS = (
    _never_null("key", _TEXT, "key of the cell's student step"),
    *AXES,
    _never_null(
        "status",
        _TEXT,
        "done: the student is trained and evaluated; failed: one of these two steps failed; "
        "blocked: a step they depend on failed; pending: not finished yet",
    ),
    Column(
        "error",
        _TEXT,
        "",
        "one line: why the cell failed or is blocked, or why a done cell has no scores of the weak"
        " model or of its own ceiling (with select the row may be compared with another one)",
    ),
    *(
        Column(
            f"{role}_{score.name}",
            _REAL,
            score.unit,
            f"the {role} model's {score.description} on the test rows",
        )
        for score in SCORES
        for role in MODEL_ROLES
    ),
    Column(
        "test_rows", _INT, "examples", "number of test examples on which the student was evaluated"
    ),
    Column(
        "classes",
        _TEXT,
        "",
        "names of the classes as a JSON list, in the order of their indices; null for preference "
        "pairs",
    ),
    Column(
        "shorter_answer_accuracy",
        _REAL,
        "fraction",
        "accuracy on the test rows of always preferring the shorter answer, a baseline without a"
        " model; null for classification",
    ),
    Column(
        "pgr",
        _REAL,
        "fraction",
        "performance gap recovered, (student - weak) / (ceiling - weak) in accuracy; never clipped,"
        " so it can be negative or above 1; null where ceiling equals weak",
    ),
    *SELECTION,
    Column("gain", _REAL, "nat", "weak_cross_entropy - student_cross_entropy"),
    Column("misfit_forward", _REAL, "nat", "mean KL(weak‖student) on the test rows"),
    Column("misfit_reverse", _REAL, "nat", "mean KL(student‖weak) on the test rows"),
    Column(
        "agreement",
        _REAL,
        "fraction",
        "share of the test rows for which student and weak model predict the same class",
    ),
    Column(
        "error_inheritance",
        _REAL,
        "fraction",
        "share of the weak model's errors in which the student chooses the same wrong class",
    ),
    Column(
        "error_correction",
        _REAL,
        "fraction",
        "share of the weak model's errors on which the student is right",
    ),
    Column(
        "new_errors",
        _REAL,
        "fraction",
        "share of the rows that the weak model has right on which the student is wrong",
    ),
    Column(
        "by_weak_confidence",
        _TEXT,
        "",
        "those three rates by decile of the weak model's confidence, as JSON: a list of from, to "
        "(probabilities of its top class), rows, and the rates",
    ),
    Column(
        "blind_spots",
        _REAL,
        "fraction",
        "share of the test rows on which the student is wrong with a confidence of at least 0.9 "
        "and the weak model's confidence is at most 0.6",
    ),
    Column("error_phi", _REAL, "", "correlation (φ) of the errors of student and weak model"),
    Column("error_kappa", _REAL, "", "Cohen's κ of the errors of student and weak model"),
    Column(
        "ceiling_error_phi",
        _REAL,
        "",
        "correlation (φ) of the errors of ceiling and weak model, which learned from the same rows "
        "but not from each other: the independent pair to compare error_phi with",
    ),
    Column("ceiling_error_kappa", _REAL, "", "Cohen's κ of the errors of ceiling and weak model"),
    Column(
        "flipped_rows",
        _INT,
        "examples",
        "rows that the student learned from whose label's class noise has changed",
    ),
    Column(
        "flipped_restored",
        _REAL,
        "fraction",
        "share of the flipped rows for which the student, with the weights of its last step, "
        "predicts the class before noise; null without any",
    ),
    Column(
        "flipped_memorised",
        _REAL,
        "fraction",
        "share of the flipped rows for which that student predicts the class after noise; null "
        "without any",
    ),
    Column(
        "weak_label_accuracy",
        _REAL,
        "fraction",
        "accuracy of all labels that label_key's step made, as they are: of rows that were held"
        " out or left out too, before temperature and noise; of a chain, those of the student"
        " before it. learned_label_accuracy is of what was learned from",
    ),
    Column(
        "weak_confidence",
        _REAL,
        "probability",
        "mean over rows of those labels' largest distance from 1/K (from 1/2 for two classes)",
    ),
    Column(
        "calibration_temperature",
        _REAL,
        "",
        "the temperature that calibrated the weak model's logits; null without, and for ensembles",
    ),
    Column("trained_rows", _INT, "examples", "rows that the student learned from"),
    Column(
        "relabelled_rows",
        _INT,
        "examples",
        "rows whose most probable class, or classes in a tie, relabelling changed, before the"
        " filter; null without relabelling",
    ),
    Column(
        "learned_label_accuracy",
        _REAL,
        "fraction",
        "accuracy of the labels that the student learned from, after temperature, noise,"
        " relabelling and filter",
    ),
    Column(
        "learned_label_confidence",
        _REAL,
        "probability",
        "mean over those labels of the largest distance from 1/K (from 1/2 for two classes)",
    ),
    Column(
        "ood_gain_mean",
        _REAL,
        "nat",
        "mean of gain over the further test sets of the data set; null without any, or if one has"
        " no scores",
    ),
    Column(
        "ood_accuracy_mean",
        _REAL,
        "fraction",
        "mean of the student's accuracy over these test sets; null likewise",
    ),
    Column(
        "seconds",
        _REAL,
        "s",
        "wall-clock time of the student's step; an equal share of it where students are trained"
        " together",
    ),
    Column(
        "tokens",
        _INT,
        "tokens",
        "tokens processed in the student's training, summed over workers;"
        " null for a head on stored features",
    ),
    Column(
        "tokens_per_second",
        _REAL,
        "tokens / s",
        "throughput of the student's training; null for a head on stored features",
    ),
    Column(
        "peak_memory_bytes",
        _INT,
        "B",
        "peak memory of the student's step on the worker that used most: GPU memory if it used a"
        " GPU, else memory of the process",
    ),
    Column(
        "predicted_memory_bytes",
        _INT,
        "B",
        "the plan's upper estimate of peak_memory_bytes, for rows of the maximum length;"
        " null without a gpu_type and for a head on stored features",
    ),
    Column(
        "workers",
        _INT,
        "processes",
        "number of processes that trained the student together; null for a last layer",
    ),
    Column("steps", _INT, "steps", "optimizer steps of the student"),
    Column(
        "parameters",
        _INT,
        "parameters",
        "parameters of the student's model: backbone, head and adapters; null where the shape of "
        "its backbone is not known",
    ),
    Column("trained_parameters", _INT, "parameters", "those of them that were trained"),
    Column(
        "flops",
        _REAL,
        "operations",
        "of the student's training, estimated from what was computed: (4 parameters + 2 "
        "trained_parameters) a token, which is 6 N where all are trained; for a head on stored "
        "features 6 trained_parameters a row and epoch (or iteration of a solver)",
    ),
    Column(
        "final_loss",
        _REAL,
        "nat",
        "the student's training loss, the mean of its last 10 optimizer steps",
    ),
    Column(
        "converged",
        _FLAG,
        "",
        "whether the exact solver's student is at a minimum of its loss (both gradient and Newton "
        "step are small); null where it was trained by optimizer steps",
    ),
    Column(
        "weak_key",
        _TEXT,
        "",
        "key of the weak model's step, or of the ensemble's, as in predictions",
    ),
    Column("ceiling_key", _TEXT, "", "key of the ceiling's step, as in predictions"),
    Column(
        "label_key", _TEXT, "", "key of the step that made the labels that the student learned from"
    ),
    Column("prepare_key", _TEXT, "", "key of the step that prepared the data"),
    Column("code_commit", _TEXT, "", "git commit of the code that trained the student"),
    Column("code_dirty", _FLAG, "", "whether that code had uncommitted changes"),
    Column("code_digest", _TEXT, "", "digest of that code's source files"),
    _never_null("schema_version", _INT, "version of this table's schema"),
)

PREDICTIONS = (
    _never_null(
        "key", _TEXT, "key of the model's step: the key, weak_key or ceiling_key of results"
    ),
    _never_null("model_role", _TEXT, "weak, student or ceiling"),
    _never_null("row_id", _TEXT, "identifier of the test example, derived from its content"),
    _never_null(
        "label", _INT, "true class; for preference pairs 1 if answer A is preferred, else 0"
    ),
    Column("prob", _REAL, "probability", "probability of class 1 of two; null for more classes"),
    _never_null("probs", pa.list_(_REAL), "probability of each class, in order", "probability"),
    Column(
        "prompt_id",
        _TEXT,
        "",
        "digest of the test example's prompt, its row_id if it has none; examples of one prompt "
        "are not independent",
    ),
    Column("phenomenon", _TEXT, "", "what a generated example tests; null for other data"),
)


def schema(columns: tuple[Column, ...], **metadata: str) -> pa.Schema:
    """The Arrow schema of a table.

    Unit and description of a column are its field metadata, ``metadata`` that of the file.
    """
    return pa.schema(
        [
            pa.field(
                column.name,
                column.type,
                column.nullable,
                {"unit": column.unit, "description": column.description},
            )
            for column in columns
        ],
        metadata,
    )
