"""The built-in task: minimal pairs that only grammar can tell apart."""

import json
from collections import Counter
from hashlib import blake2b

import pytest

from w2s_ray.data.agreement import LOCAL, PHENOMENA, VERSION, generate, pair

ROWS = list(generate(0, 30_000))


def words(sentence: str) -> list[str]:
    return sentence.lower().removesuffix(".").split()


def changed(row: dict[str, str]) -> tuple[int, str, str]:
    """Where the two sentences differ, and the sound and the spoilt word there."""
    good, bad = words(row["chosen"]), words(row["rejected"])
    assert len(good) == len(bad)
    places = [place for place, (a, b) in enumerate(zip(good, bad, strict=True)) if a != b]
    assert len(places) == 1
    return places[0], good[places[0]], bad[places[0]]


def test_no_sentence_stands_twice_in_thirty_thousand_pairs():
    sentences = [row[side] for row in ROWS for side in ("chosen", "rejected")]
    assert len(set(sentences)) == 60_000
    assert {row["prompt"] for row in ROWS} == {""}


def test_a_pair_differs_in_one_word_and_often_far_from_the_end():
    distance = [len(words(row["chosen"])) - 1 - changed(row)[0] for row in ROWS[:5000]]
    assert sum(far >= 2 for far in distance) > 0.4 * len(distance)
    assert sum(far >= 5 for far in distance) > 0.15 * len(distance)


def test_no_word_gives_the_answer_away():
    right: Counter[tuple[str, str]] = Counter()
    both: Counter[tuple[str, str]] = Counter()
    for row in ROWS:
        _, good, bad = changed(row)
        first, second = sorted((good, bad))
        both[first, second] += 1
        right[first, second] += good == first
    deviations = [(right[forms] - n / 2) / (n / 4) ** 0.5 for forms, n in both.items() if n >= 30]
    assert len(deviations) > 50
    assert max(map(abs, deviations)) < 4.5
    # Best of all rules "this form beats that form", learned on the very rows it is scored on.
    best = sum(max(right[forms], n - right[forms]) for forms, n in both.items())
    assert best / len(ROWS) < 0.53


def test_the_sound_sentence_is_not_the_longer_one():
    longer = sum(len(row["chosen"]) > len(row["rejected"]) for row in ROWS)
    shorter = sum(len(row["chosen"]) < len(row["rejected"]) for row in ROWS)
    assert longer / (longer + shorter) == pytest.approx(0.5, abs=0.015)


def test_every_phenomenon_is_there_and_half_of_the_rows_are_local():
    counts = Counter(row["phenomenon"] for row in ROWS)
    assert set(counts) == set(PHENOMENA)
    assert min(counts.values()) > 300
    assert sum(counts[name] for name in LOCAL) / len(ROWS) == pytest.approx(0.5, abs=0.03)


def test_rows_are_a_function_of_seed_and_number():
    assert list(generate(0, 50)) == ROWS[:50]
    assert [pair(0, n) for n in range(20)] != [pair(1, n) for n in range(20)]


def test_what_is_generated_changes_only_with_its_version():
    text = json.dumps(ROWS[:1000])
    assert (VERSION, blake2b(text.encode(), digest_size=8).hexdigest()) == (1, "6d738335ce8c0bab")
