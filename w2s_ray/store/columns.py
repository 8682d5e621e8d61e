"""The columns of `results/` and `predictions/`: names, types, units, meaning, version.

Other programs read these tables, so a column is never renamed and never changes its meaning
without a new schema version; columns may be added. `docs/results.md` is this file in prose, and a
test holds the two together. Any score can be missing, and a missing score is null, never 0.
"""

from typing import NamedTuple

import pyarrow as pa

RESULTS_SCHEMA_VERSION = 1
PREDICTIONS_SCHEMA_VERSION = 1

STATUSES = ("done", "failed", "blocked", "pending")
MODEL_ROLES = ("weak", "student", "ceiling")


class Column(NamedTuple):
    """One column; ``unit`` is "" for text and pure counts."""

    name: str
    type: pa.DataType
    unit: str
    description: str
    nullable: bool = True


def _axis(name: str, type_: pa.DataType, description: str, unit: str = "") -> Column:
    return Column(name, type_, unit, description, nullable=False)


_TEXT, _INT, _REAL, _FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()

AXES = (
    _axis("study", _TEXT, "name of the study"),
    _axis("data", _TEXT, "name of the data set"),
    _axis("weak", _TEXT, "name of the weak model"),
    _axis("strong", _TEXT, "name of the strong model, of which student and ceiling are made"),
    _axis("loss", _TEXT, "the student's loss"),
    _axis("loss_parameters", _TEXT, "the loss's parameters as JSON, {} if it has none"),
    _axis("confidence_weight", _REAL, "final weight of the confidence target", "fraction"),
    _axis("confidence_warmup", _REAL, "share of steps over which that weight rises", "fraction"),
    _axis("confidence_form", _TEXT, "target or sum: how the confidence target enters the loss"),
    _axis("noise_ratio", _REAL, "share of weak labels that are disturbed", "fraction"),
    _axis("noise_strength", _REAL, "a disturbed label w becomes 1/2 + strength (w - 1/2)"),
    Column("label_clip", _REAL, "probability", "soft labels are clipped to [γ, 1 - γ]: γ"),
    _axis("trainable", _TEXT, "full, last_layer or lora"),
    _axis("learning_rate", _REAL, "peak learning rate of student and ceiling"),
    _axis("epochs", _INT, "epochs of student and ceiling", "epochs"),
    _axis("batch_size", _INT, "examples in one optimizer step of student and ceiling", "examples"),
    _axis("seed", _INT, "seed of the cell"),
)

RESULTS = (
    _axis("key", _TEXT, "key of the cell's student step"),
    *AXES,
    _axis(
        "status",
        _TEXT,
        "done: the student is trained and scored; failed: one of these two steps failed; "
        "blocked: a step it needs failed; pending: not yet",
    ),
    Column(
        "error",
        _TEXT,
        "",
        "one line: why the cell failed or is blocked, or why a done cell lacks weak or ceiling",
    ),
    *(
        Column(f"{role}_{score}", _REAL, unit, f"the {role} model's {text} on the test rows")
        for score, unit, text in (
            ("accuracy", "fraction", "accuracy"),
            ("auroc", "fraction", "area under the ROC curve"),
            ("cross_entropy", "nat", "mean cross-entropy with the true labels"),
            ("calibration_error", "fraction", "expected calibration error"),
        )
        for role in MODEL_ROLES
    ),
    Column("test_rows", _INT, "examples", "test examples that the student was scored on"),
    Column(
        "shorter_answer_accuracy",
        _REAL,
        "fraction",
        "accuracy on the test rows of preferring the shorter answer, a baseline without a model;"
        " null for classification",
    ),
    Column(
        "pgr",
        _REAL,
        "fraction",
        "performance gap recovered, (student - weak) / (ceiling - weak) in accuracy; never clipped,"
        " can be negative; null where ceiling equals weak",
    ),
    Column("gain", _REAL, "nat", "weak_cross_entropy - student_cross_entropy"),
    Column("misfit_forward", _REAL, "nat", "mean KL(weak‖student) on the test rows"),
    Column("misfit_reverse", _REAL, "nat", "mean KL(student‖weak) on the test rows"),
    Column("agreement", _REAL, "fraction", "test rows to which student and weak give one class"),
    Column("weak_label_accuracy", _REAL, "fraction", "accuracy of the weak labels, before noise"),
    Column(
        "weak_confidence",
        _REAL,
        "probability",
        "mean over rows of the weak label's largest distance from 1/K; for two classes, from 1/2",
    ),
    Column(
        "seconds",
        _REAL,
        "s",
        "wall-clock time of the student's step; its even share where students are trained together",
    ),
    Column(
        "tokens",
        _INT,
        "tokens",
        "tokens that went through the student in training, on all workers;"
        " null for a head on stored features",
    ),
    Column(
        "tokens_per_second",
        _REAL,
        "tokens / s",
        "speed of the student's training; null for a head on stored features",
    ),
    Column(
        "peak_memory_bytes",
        _INT,
        "B",
        "peak memory of the student's step, of the worker that used most: of the GPU if it used"
        " one, else of the process",
    ),
    Column(
        "predicted_memory_bytes",
        _INT,
        "B",
        "what the plan expected peak_memory_bytes to be at most, with the longest rows there can"
        " be; null without a gpu_type and for a head on stored features",
    ),
    Column("workers", _INT, "processes", "processes that trained the student together"),
    Column("steps", _INT, "steps", "optimizer steps of the student"),
    Column("final_loss", _REAL, "nat", "the student's last reported training loss"),
    Column("weak_key", _TEXT, "", "key of the weak model's step, as in predictions"),
    Column("ceiling_key", _TEXT, "", "key of the ceiling's step, as in predictions"),
    Column("label_key", _TEXT, "", "key of the step that made the weak labels"),
    Column("prepare_key", _TEXT, "", "key of the step that prepared the data"),
    Column("code_commit", _TEXT, "", "git commit of the code that trained the student"),
    Column("code_dirty", _FLAG, "", "whether that code had uncommitted changes"),
    Column("code_digest", _TEXT, "", "digest of that code's source files"),
    _axis("schema_version", _INT, "version of this table's schema"),
)

PREDICTIONS = (
    _axis("key", _TEXT, "key of the model's step: key, weak_key or ceiling_key of results"),
    _axis("model_role", _TEXT, "weak, student or ceiling"),
    _axis("row_id", _TEXT, "the test example, by its content"),
    _axis("label", _INT, "true class; for preference pairs 1 if answer A is preferred, else 0"),
    Column("prob", _REAL, "probability", "probability of class 1; null for more than two classes"),
    _axis("probs", pa.list_(_REAL), "probability of each class, in order", "probability"),
)


def schema(columns: tuple[Column, ...], **metadata: str) -> pa.Schema:
    """The Arrow schema; unit and description are field metadata, ``metadata`` that of the file."""
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
