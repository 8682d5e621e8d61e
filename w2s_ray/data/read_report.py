"""The report of a data set: what was read, what was used, and what a reader should know of it.

All values are JSON values and depend on content alone, not on names or order of files.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa

from w2s_ray.data.class_names import look_alikes
from w2s_ray.data.contexts import alike, digest
from w2s_ray.data.rows import Origin, Row


def report(
    origins: Mapping[str, Origin],
    kept: Mapping[str, Iterable[Row]],
    tables: Mapping[str, pa.Table],
    groups: Mapping[str, Sequence[str]],
    classes: Sequence[str],
) -> dict[str, Any]:
    """The report that is stored with a prepared data set.

    Args:
        origins: what was read, by given split, or of the one source.
        kept: the rows of each split, in the order of ``tables`` and ``groups``.
        tables: of each split.
        groups: name of the group of each row.
        classes: names in the order of their indices; empty for preference pairs.
    """
    given = len(origins) > 1
    contradictions = _contradictions(origins)
    rows = {split: list(of_split) for split, of_split in kept.items()}
    splits = {
        split: {
            **_described(table, len(classes) or 2),
            "groups": len(set(groups[split])),
            "largest_group": max(Counter(groups[split]).values(), default=0),
            "guessed_groups": sum(row.context.is_guess for row in rows[split]),
        }
        for split, table in tables.items()
    }
    return {
        "read": {name: _counts(of, contradictions[name]) for name, of in origins.items()},
        "splits": splits,
        "overlap": _overlaps(groups) if given else {},
        "shared_texts": _shared_texts(rows) if given else {},
        "shorter_answer_accuracy": None if classes else _shorter_wins(tables["test"]),
        "classes": list(classes),
        "look_alikes": look_alikes(classes),
        "absent_classes": {
            split: absent
            for split, of in splits.items()
            if (absent := [n for n, s in zip(classes, of["label_share"], strict=False) if not s])
        },
    }


def _counts(origin: Origin, contradictions: int) -> dict[str, Any]:
    return {
        "rows": origin.read,
        "usable": len(origin.rows),
        "unusable": dict(sorted(origin.unusable.items())),
        "notes": dict(sorted(origin.notes.items())),
        "duplicates": len(origin.rows) - len({row.content for row in origin.rows}),
        "contradictions": contradictions,
    }


def _contradictions(origins: Mapping[str, Origin]) -> dict[str, int]:
    """Rows of each origin whose text has another label elsewhere, or whose pair is turned round."""
    decisions: defaultdict[str, set[str]] = defaultdict(set)
    subjects = {
        name: [_subject(row) for row in origin.rows] for name, origin in origins.items()
    }  # fmt: skip
    for name, origin in origins.items():
        for subject, row in zip(subjects[name], origin.rows, strict=True):
            decisions[subject].add(row.label or row.answers[0].strip())
    return {
        name: sum(len(decisions[subject]) > 1 for subject in of_origin)
        for name, of_origin in subjects.items()
    }


def _subject(row: Row) -> str:
    """What a label or a preference is about: the text, or the prompt and both answers."""
    return digest(alike(row.prompt), *sorted(map(alike, row.answers)))


def _described(table: pa.Table, num_classes: int) -> dict[str, Any]:
    """Number of rows, the share of each label, and rows with a blank answer."""
    share = np.bincount(table["label"].to_numpy(), minlength=num_classes) / max(1, table.num_rows)
    blank = sum(not all(map(str.strip, answers)) for answers in table["answers"].to_pylist())
    return {"rows": table.num_rows, "label_share": share.tolist(), "blank_answers": blank}


def _overlaps(groups: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
    """Prompts that are in two splits, by pair of splits.

    A prompt is a group of ``data.groups``: a prompt, conversation or text. ``prompts`` counts those
    in both, ``rows`` the rows of the second split with such a prompt, and ``share`` is their
    fraction of the second split. ``any`` has the prompts in more than one split, and their fraction
    of all prompts.
    """
    overlaps: dict[str, dict[str, Any]] = {}
    for first, second in combinations(groups, 2):
        shared = set(groups[first]) & set(groups[second])
        rows = sum(group in shared for group in groups[second])
        overlaps[f"{first}, {second}"] = {
            "prompts": len(shared),
            "rows": rows,
            "share": rows / len(groups[second]),
        }
    splits_of = Counter(group for split in groups.values() for group in set(split))
    several = sum(count > 1 for count in splits_of.values())
    overlaps["any"] = {"prompts": several, "share": several / len(splits_of)}
    return overlaps


def _shared_texts(rows: Mapping[str, Sequence[Row]]) -> dict[str, int]:
    """Rows of the second split with a whole text (prompt and answer) of the first, by pair."""
    texts = {split: [texts_of(row) for row in of_split] for split, of_split in rows.items()}
    all_texts = {split: set().union(*of_split) for split, of_split in texts.items()}
    return {
        f"{first}, {second}": sum(
            not of_row.isdisjoint(all_texts[first]) for of_row in texts[second]
        )
        for first, second in combinations(texts, 2)
    }


def texts_of(row: Row) -> set[str]:
    """Hashes of the whole texts (prompt and answer) of a row."""
    return {digest(alike(row.prompt + answer)) for answer in row.answers}


def _shorter_wins(test: pa.Table) -> float:
    """Accuracy of preferring the answer with fewer characters; a tie counts as half."""
    lengths = np.array([[len(answer) for answer in row] for row in test["answers"].to_pylist()])
    a_is_shorter = (np.sign(lengths[:, 1] - lengths[:, 0]) + 1) / 2
    return float(1 - np.mean(np.abs(a_is_shorter - test["label"].to_numpy())))
