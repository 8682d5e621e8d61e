"""Two kinds of text classifiers that are plain numbers: weights of hashed n-grams, and a bias.

Logistic regression weighs words and pairs of words by what separates the classes; naive Bayes
counts pieces of words in each class apart. They err in different ways, so what has learned to
please the one has not learned to please the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

ClassifierKind = Literal["logistic", "naive_bayes"]
FEATURES = 2**18
MOST_ITERATIONS = 1000
SOLVER_TOLERANCE = 1e-6  # other machines then agree on all but the closest verdicts
INVERSE_REGULARISATION = 10.0


class TextClassifier(NamedTuple):
    """A linear classifier of hashed n-grams.

    Attributes:
        weights: (``FEATURES``,) float64.
        bias: the log-odds of a text without n-grams.
    """

    kind: ClassifierKind
    weights: NDArray[np.float64]
    bias: float

    def log_odds(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """(n,) log p(wanted)/p(other) of each text."""
        found: NDArray[np.float64] = _features(self.kind, texts) @ self.weights + self.bias
        return found


def fitted(kind: ClassifierKind, texts: Sequence[str], wanted: Sequence[bool]) -> TextClassifier:
    """A classifier that has learned which texts are the wanted ones.

    Raises:
        ValueError: they are all of one class.
    """
    if len(set(wanted)) < 2:
        raise ValueError(f"{len(texts):,} texts of one class, expected two")
    features, labels = _features(kind, texts), np.asarray(wanted, dtype=np.int64)
    if kind == "logistic":
        from sklearn.linear_model import LogisticRegression

        model: Any = LogisticRegression(
            C=INVERSE_REGULARISATION, max_iter=MOST_ITERATIONS, tol=SOLVER_TOLERANCE
        )
        model.fit(features, labels)
        return TextClassifier(kind, model.coef_[0], float(model.intercept_[0]))
    from sklearn.naive_bayes import MultinomialNB

    model = MultinomialNB().fit(features, labels)
    other, own = model.feature_log_prob_
    prior = model.class_log_prior_
    return TextClassifier(kind, own - other, float(prior[1] - prior[0]))


def _features(kind: ClassifierKind, texts: Sequence[str]) -> csr_matrix:
    """(n, ``FEATURES``) weights of hashed n-grams: of words, or of characters within words."""
    from sklearn.feature_extraction.text import HashingVectorizer

    if kind == "logistic":
        reads: dict[str, Any] = {"ngram_range": (1, 2), "norm": "l2", "binary": True}
    else:
        reads = {"analyzer": "char_wb", "ngram_range": (3, 5), "norm": None}
    hashed = HashingVectorizer(n_features=FEATURES, alternate_sign=False, **reads)
    features: csr_matrix = hashed.transform(list(texts))
    return features
