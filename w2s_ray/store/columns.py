"""The columns of a study's tables: names, types, units, meaning, version.

Other programs read these tables, so a column is never renamed and its meaning never changes without
a new schema version; columns may be added. ``docs/results.md`` documents the same columns, and a
test compares the two. Any score can be missing; a missing score is null, never 0.
"""

from typing import NamedTuple

import pyarrow as pa

RESULTS_SCHEMA_VERSION = 1
PREDICTIONS_SCHEMA_VERSION = 1

STATUSES = ("done", "failed", "blocked", "pending")
MODEL_ROLES = ("weak", "student", "ceiling")


class Column(NamedTuple):
    """One column; ``unit`` is "" for text, flags and plain numbers."""

    name: str
    type: pa.DataType
    unit: str
    description: str
    nullable: bool = True


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


def _never_null(name: str, type_: pa.DataType, description: str, unit: str = "") -> Column:
    return Column(name, type_, unit, description, nullable=False)


_TEXT, _INT, _REAL, _FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()

AXES = (
    _never_null("study", _TEXT, "name of the study"),
    _never_null("data", _TEXT, "name of the data set"),
    _never_null(
        "weak",
        _TEXT,
        "name of the weak model; a+b+c for an ensemble of several; of a chain, the first model",
    ),
    _never_null(
        "strong",
        _TEXT,
        "name of the strong model, from which student and ceiling are trained; of a chain, the last"
        " model",
    ),
    _never_null(
        "chain",
        _TEXT,
        "m1>m2>m3 for a student that learns from the student of m2, which learns from m1; empty for"
        " a pair",
    ),
    _never_null(
        "combine",
        _TEXT,
        "how an ensemble's labels are combined: mean, product or learned; no effect with one weak"
        " model",
    ),
    _never_null("loss", _TEXT, "the student's loss"),
    _never_null("loss_parameters", _TEXT, "parameters of the loss as JSON; {} if it has none"),
    _never_null("confidence_weight", _REAL, "final weight of the confidence target", "fraction"),
    _never_null(
        "confidence_warmup",
        _REAL,
        "share of the optimizer steps over which that weight rises",
        "fraction",
    ),
    _never_null(
        "confidence_form", _TEXT, "how the confidence target enters the loss: target or sum"
    ),
    _never_null(
        "label_temperature",
        _REAL,
        "the T of the weak labels softmax(log w / T), before noise; 0: hard labels",
    ),
    _never_null("noise_ratio", _REAL, "share of the weak labels that are perturbed", "fraction"),
    _never_null(
        "noise_strength", _REAL, "a perturbed label w becomes 1/K + noise_strength (w - 1/K)"
    ),
    Column(
        "label_clip",
        _REAL,
        "probability",
        "the γ of the interval [γ, 1 - γ] to which soft labels are clipped",
    ),
    _never_null("trainable", _TEXT, "which parameters are trained: full, last_layer or lora"),
    _never_null("learning_rate", _REAL, "peak learning rate of student and ceiling"),
    _never_null("epochs", _INT, "training epochs of student and ceiling", "epochs"),
    _never_null(
        "batch_size", _INT, "examples per optimizer step of student and ceiling", "examples"
    ),
    _never_null("seed", _INT, "seed of the cell"),
    _never_null(
        "control",
        _TEXT,
        'the control that stands in the place of the student (docs/controls.md); "" for a student'
        " of the grid",
    ),
)

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
        " model or the ceiling",
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
        "weak_label_accuracy",
        _REAL,
        "fraction",
        "accuracy of the labels that the student learned from, before noise; of a chain, those of"
        " the student before it",
    ),
    Column(
        "weak_confidence",
        _REAL,
        "probability",
        "mean over rows of those labels' largest distance from 1/K (from 1/2 for two classes)",
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
        "final_loss",
        _REAL,
        "nat",
        "the student's training loss, the mean of its last 10 optimizer steps",
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
