"""Controls: what a student has to be compared with, by name, as data."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

Control = Literal[
    "weak_student", "strong_on_weak_rows", "shuffled_labels", "tfidf", "length", "prompt_only"
]

CONTROLS: Mapping[Control, str] = MappingProxyType(
    {
        "weak_student": "the weak model's backbone as the student of its own labels",
        "strong_on_weak_rows": "the strong model on the students' rows with their true labels",
        "shuffled_labels": "the student on weak labels that are shuffled over the rows",
        "tfidf": "logistic regression on words and pairs of words, on the weak labels",
        "length": "logistic regression on the lengths of the texts, on the weak labels",
        "prompt_only": "logistic regression on the words of the prompt, on the weak labels",
    }
)

BASELINES = ("tfidf", "length", "prompt_only")
"""Controls that are no language models."""
