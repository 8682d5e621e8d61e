"""``baseline``: logistic regression on a few features of the texts, on the weak labels.

What words, lengths or prompts alone learn from a weak model is no merit of a language model. A
soft label is learned as K weighted copies of its row, which is forward cross-entropy. Of a pair the
difference of the answers' features is read, without an intercept: A and B may change places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from w2s_ray.data.held_out import without_validation
from w2s_ray.data.labels import probs_column, soft_labels_of
from w2s_ray.plan.configs import BaselineConfig
from w2s_ray.plan.step import Step
from w2s_ray.steps.context import Context
from w2s_ray.steps.prepare import Rows
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.drafts import Draft
from w2s_ray.store.names import SOFT_LABELS, TEST_PREDICTIONS

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

LEAST_ROWS = 2  # texts in which a word must be, to be a feature
ITERATIONS = 1000


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Writes ``test.parquet``: row_id, label, probs of the test rows."""
    config, data = step.config_as(BaselineConfig), Rows(inputs["prepare"])
    rows, test = _learned(data, config), data["test"]
    features, probs = baseline_probs(config, data, inputs["label"], test)
    table = pa.table(
        {"row_id": test["row_id"], "label": test["label"], "probs": probs_column(probs)}
    )
    draft.write(TEST_PREDICTIONS, table)
    draft.metrics.update(features=features, trained_rows=rows.num_rows)


def baseline_probs(
    config: BaselineConfig, data: Rows, label: Artifact, test: pa.Table
) -> tuple[int, NDArray[np.float64]]:
    """The number of features, and (t, K) probabilities of the rows ``test``.

    Args:
        data: its weak rows are learned from, but for the validation rows.
        label: the soft labels of these.
    """
    reads, rows = config.reads, _learned(data, config)
    labels = soft_labels_of(label.table(SOFT_LABELS), rows["row_id"].to_pylist())
    features, test_features = _features(reads, rows, test)
    is_pair = data.per_row == 2 and reads != "prompt_only"
    return features.shape[1], fitted_probs(features, labels, test_features, intercept=not is_pair)


def _learned(data: Rows, config: BaselineConfig) -> pa.Table:
    """The rows that a baseline learns from."""
    rows = data["weak"]
    if not config.validation_rows:
        return rows
    return rows.take(without_validation(rows["row_id"].to_pylist(), config.validation_rows))


def fitted_probs(
    features: csr_matrix,
    soft_labels: NDArray[np.float32],
    test_features: csr_matrix,
    *,
    intercept: bool,
) -> NDArray[np.float64]:
    """(t, K) probabilities of the test rows.

    Args:
        features: (n, F) of the rows with ``soft_labels`` (n, K).
    """
    from scipy.sparse import vstack
    from sklearn.linear_model import LogisticRegression

    classes = soft_labels.shape[1]
    model = LogisticRegression(fit_intercept=intercept, max_iter=ITERATIONS)
    model.fit(
        vstack([features] * classes),
        np.repeat(np.arange(classes), len(soft_labels)),
        sample_weight=soft_labels.T.ravel().astype(np.float64),
    )
    probs: NDArray[np.float64] = model.predict_proba(test_features)
    return probs


def _features(reads: str, rows: pa.Table, test: pa.Table) -> tuple[csr_matrix, csr_matrix]:
    """(n, F) features of the rows and (t, F) of the test rows, of a pair A − B."""
    from scipy.sparse import csr_matrix as sparse

    if reads == "length":
        raw, test_raw = (_difference(_texts(table, reads), _lengths) for table in (rows, test))
        scale = raw.std(axis=0)
        scale[scale == 0.0] = 1.0
        return sparse(raw / scale), sparse(test_raw / scale)
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(ngram_range=(1, 2), min_df=LEAST_ROWS, sublinear_tf=True)
    texts, test_texts = (_texts(table, reads) for table in (rows, test))
    try:
        words.fit([text for row in texts for text in row])
    except ValueError:  # no word is in two texts (or there are no prompts): nothing can be learned
        return sparse((rows.num_rows, 1)), sparse((test.num_rows, 1))
    return _difference(texts, words.transform), _difference(test_texts, words.transform)


def _texts(table: pa.Table, reads: str) -> list[list[str]]:
    """The texts of each row that are read: the prompt, or the answers."""
    if reads == "prompt_only":
        return [[prompt] for prompt in table["prompt"].to_pylist()]
    answers: list[list[str]] = table["answers"].to_pylist()
    return answers


def _difference(texts: Sequence[Sequence[str]], features: Callable[[list[str]], Any]) -> Any:
    """Features of the one text of each row, or of A − B."""
    first, *second = (features(list(column)) for column in zip(*texts, strict=True))
    return first - second[0] if second else first


def _lengths(texts: Sequence[str]) -> NDArray[np.float64]:
    """(n, 2) logarithms of 1 + characters and 1 + words."""
    return np.log1p([[len(text), len(text.split())] for text in texts])
