"""Names of the folders and files of a store.

Below the root lie one folder for each kind of step, and the folders of ``RESERVED``::

    <kind>/<slug>-<key>/record.json   artifacts: a finished step's files and its record
    <kind>/@<members>-<key>/          artifacts of steps that were computed together (``bundles``)
    checkpoints/<key>/                checkpoints of a step in training (``checkpoints``)
    claims/                           which process works on which step (``claims``)
    damaged/                          damaged artifacts, set aside (``Store.set_aside``)
    failures/<key>.json               why a step failed (``failures``)
    parts/<key>/                      what an interrupted step has already computed (``parts``)
    plans/<study>.json                the keys of all steps of a study (``plans``)
    predictions/<study>.parquet       predictions of a study's models (``predictions``)
    reports/<study>/                  the report that a run leaves (``report.saved``)
    results/<study>.parquet           one row per cell of a study (``results``)
    samples/<study>.parquet           judged answers of a study's models (``text_results``)
    sinks/                            copies of numbers for other programs (``w2s_ray.sinks``)
    studies/<study>.json              the cells of a study (``results``)
    train_predictions/<study>.parquet predictions of training rows (``train_predictions``)
    transfer/<study>.parquet          one row per cell and further test set (``transfer``)

The slug is for people; only the key identifies a step.
"""

import re

RECORD = "record.json"
MEMBERS = "members.parquet"  # of a bundle

# Files inside artifacts that one room writes and another reads.
TEST_PREDICTIONS = "test.parquet"  # a model's row_id, label and probs of the test rows
TEST_ROWS = "test.parquet"  # the prepared test rows: row_id, prompt, answers, label
TRAINED_ROWS = "train.parquet"  # a model's logits of the students' training rows, and its labels
PREPARED_WEAK = "weak.parquet"  # the prepared rows that students learn from
SOFT_LABELS = "soft_labels.parquet"  # row_id and probs of the weak labels
VALIDATION = "validation.parquet"  # scores on held-out rows, one row per evaluated step
PROMPTS = "prompts.parquet"  # what is answered, and the check of each answer
SAMPLES = "samples.parquet"  # generated answers, one row per prompt and sample
VERDICTS = "verdicts.parquet"  # what the checks say of them
CLASSIFIER = "classifier.safetensors"  # weights of hashed n-grams, and a bias
PERPLEXITIES = "perplexities.parquet"  # how likely a model of no pair finds them
RATIOS = "log_ratios.parquet"  # how the weak model's alignment has changed the tokens of answers
PAIRS = "pairs.parquet"  # a chosen and a rejected answer to one prompt
STEP_LOGITS = "step_logits.npy"  # test logits of the evaluated steps before the last

CHECKPOINTS = "checkpoints"
CLAIMS = "claims"
DAMAGED = "damaged"
FAILURES = "failures"
PARTS = "parts"
PLANS = "plans"
PREDICTIONS = "predictions"
REPORTS = "reports"
REPORT_PAGE = "index.html"
RESULTS = "results"
SAMPLE_TABLES = "samples"
SINKS = "sinks"
STUDIES = "studies"
TRAIN_PREDICTIONS = "train_predictions"
TRANSFER = "transfer"
RESERVED = (
    CHECKPOINTS,
    CLAIMS,
    DAMAGED,
    FAILURES,
    PARTS,
    PLANS,
    PREDICTIONS,
    REPORTS,
    RESULTS,
    SAMPLE_TABLES,
    SINKS,
    STUDIES,
    TRAIN_PREDICTIONS,
    TRANSFER,
)
WITHOUT_STEPS = frozenset(RESERVED) - {DAMAGED}  # no artifacts are in these, nor were
WITH_FOLDERS = (CHECKPOINTS, PARTS, REPORTS)  # whose files lie one level deeper


_BUNDLE = "@"  # begins the name of a bundle's folder, and no slug


def component(name: str) -> str:
    """Return ``name`` if it can be one visible part of a path.

    Raises:
        ValueError: It cannot.
    """
    if not re.fullmatch(r"[A-Za-z0-9_+=@,][A-Za-z0-9._+=@,-]*", name):
        raise ValueError(f"{name!r} cannot be part of a file name")
    return name


def artifact_folder(kind: str, slug: str, key: str) -> str:
    """Path of a step's artifact, ``<kind>/<slug>-<key>``.

    Raises:
        ValueError: A part cannot be used in a path, the kind is reserved, the key has a hyphen, or
            the slug begins as the name of a bundle does.
    """
    path = f"{component(kind)}/{component(slug[:150])}-{component(key)}"
    if "-" in key or kind in RESERVED or is_bundle(path):
        raise ValueError(f"no artifact can have the key {key!r} and kind {kind!r}")
    return path


def bundle_folder(kind: str, members: int, key: str) -> str:
    """Path of a bundle, ``<kind>/@<members>-<key>``."""
    return f"{component(kind)}/{_BUNDLE}{members}-{component(key)}"


def is_bundle(path: str) -> bool:
    """Whether a folder is a bundle, by its path."""
    return path.partition("/")[2].startswith(_BUNDLE)


def key_of(path: str) -> str:
    """The key in an artifact's path."""
    return path.rpartition("-")[2]


def damaged_folder(path: str, unique: str) -> str:
    """The path of the damaged artifact at ``path``, one level below where artifacts are listed.

    Args:
        unique: text that no other path has: the same step may be damaged more than once.
    """
    return f"{DAMAGED}/{path}-{unique}"


def failure_file(key: str) -> str:
    """Path of the note on a failed step."""
    return f"{FAILURES}/{component(key)}.json"


def study_file(study: str) -> str:
    """Path of a study's cells."""
    return f"{STUDIES}/{study}.json"


def plan_file(study: str) -> str:
    """Path of the keys of a study's steps."""
    return f"{PLANS}/{study}.json"


def results_file(study: str) -> str:
    """Path of a study's results table."""
    return f"{RESULTS}/{study}.parquet"


def predictions_file(study: str) -> str:
    """Path of a study's predictions table."""
    return f"{PREDICTIONS}/{study}.parquet"


def samples_file(study: str) -> str:
    """Path of a study's table of judged answers."""
    return f"{SAMPLE_TABLES}/{study}.parquet"


def train_predictions_file(study: str) -> str:
    """Path of a study's table of predictions of the training rows."""
    return f"{TRAIN_PREDICTIONS}/{study}.parquet"


def transfer_file(study: str) -> str:
    """Path of a study's transfer table."""
    return f"{TRANSFER}/{study}.parquet"


def report_folder(study: str) -> str:
    """Path of the folder of a study's report."""
    return f"{REPORTS}/{study}"
