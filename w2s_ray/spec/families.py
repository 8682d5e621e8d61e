"""Names of the families of rules that answers are checked by; ``tasks.families`` has the rules."""

from typing import Literal

Family = Literal[
    "lowercase",
    "no_commas",
    "at_most_words",
    "sentences",
    "ends_with",
    "bullets",
    "keyword",
    "begins_with",
    "in_quotes",
    "title",
    "postscript",
    "without_letter",
    "numbered",
    "capitals",
    "json_keys",
]
TRAIN_FAMILIES: tuple[Family, ...] = (
    "lowercase",
    "no_commas",
    "at_most_words",
    "sentences",
    "ends_with",
    "bullets",
    "keyword",
    "begins_with",
)
TRANSFER_FAMILIES: tuple[Family, ...] = (
    "in_quotes",
    "title",
    "postscript",
    "without_letter",
    "numbered",
    "capitals",
    "json_keys",
)
