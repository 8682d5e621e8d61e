"""Each family of rules accepts an answer that obeys and refuses near misses."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2s_ray.spec.families import TRAIN_FAMILIES, TRANSFER_FAMILIES
from w2s_ray.tasks.families import FAMILIES, obeys

# check -> (answers that obey it, answers that do not)
CASES = [
    (
        {"family": "lowercase"},
        ["the sea is 3 km away.", "  élan vital \n"],
        ["The sea.", "the seA", "ÉLAN"],
    ),
    ({"family": "capitals"}, ["THE SEA IS 3 KM AWAY.", "ÉLAN\n"], ["THE SEa", "STRAßE", "123"]),
    ({"family": "no_commas"}, ["Salt and pepper; no more."], ["Salt, pepper.", "Salt,"]),
    (
        {"family": "at_most_words", "n": 3},
        ["one two three", " one\ttwo\nthree \n", "well-known isn't it", "- one two three"],
        ["one two three four", "one.two.three.four"],
    ),
    (
        {"family": "sentences", "n": 2},
        ["It rains. Take care!", 'He said "Stop!" Then he left.', "Wait... what?\n", "A.\n\nB?"],
        ["It rains.", "It rains. It pours. Go!", "It rains. Take care", "It rains.Take care."],
    ),
    (
        {"family": "ends_with", "phrase": "that is all"},
        ["Salt is white. That is all.", "Salt, that is all \n", 'Salt. "That is all!"'],
        ["That is all, salt.", "Salt. That is all. Bye.", "Salt. That's all."],
    ),
    (
        {"family": "bullets", "n": 2},
        ["Salt:\n- white\n- fine", "* a\n  • b", "- a\n\n- b\n"],
        ["- a", "- a\n- b\n- c", "-a\n-b", "- a\n- ", "1. a\n2. b"],
    ),
    (
        {"family": "numbered", "n": 2},
        ["Salt:\n1. white\n2. fine", "1) a\n2) b"],
        ["1. a", "1. a\n2. b\n3. c", "2. a\n1. b", "1.a\n2.b", "1. a\n1. b", "- a\n- b"],
    ),
    (
        {"family": "keyword", "word": "small", "n": 2},
        ["Small towns, small roads.", "small\nSMALL"],
        ["A small town.", "Smaller and smallest.", "small_town small"],
    ),
    ({"family": "keyword", "word": "Rome", "n": 1}, ["In Rome.", "rome"], ["Romes"]),
    (
        {"family": "begins_with", "word": "Today"},
        ["Today salt is cheap.", '"Today, salt', "**Today** it is"],
        ["Salt today", "Todays salt", "To day", "today salt"],
    ),
    (
        {"family": "without_letter", "letter": "z", "at_least": 3},
        ["Salt is a solid."],
        ["Salt is", "A zoo is open.", "A ZOO IS OPEN."],
    ),
    (
        {"family": "in_quotes"},
        ['"Salt is white."', ' "a" \n', "“Salt is white.”"],
        ['"Salt', 'Salt"', "'Salt'", '"', '""', '“Salt"'],
    ),
    (
        {"family": "json_keys", "keys": ["name", "use"]},
        ['{"name": "salt", "use": "food"}', ' {"name": 1, "use": null}\n'],
        [
            '{"name": "salt"}',
            '{"use": "food", "name": "salt"}',
            '{"name": 1, "use": 2, "more": 3}',
            'Here: {"name": 1, "use": 2}',
            "{'name': 1, 'use': 2}",
            '["name", "use"]',
            '{"name": ' + "[" * 100_000,
        ],
    ),
    (
        {"family": "title"},
        ["<<Salt>>\nIt is white.", "<< Salt >> is white."],
        ["<Salt>", "<<>> Salt", "<< >> Salt", "<<Salt", "<<Sa\nlt>>", "Salt <<Salt>>"],
    ),
    (
        {"family": "postscript"},
        ["Salt is white.\n\nP.S. And fine.", "Salt\nP.S.: More."],
        ["Salt P.S. more", "Salt\nP.S.", "Salt\nPS: more", "Salt\np.s. more", "P.S. a\nb"],
    ),
]


def ids(case):
    return case[0]["family"]


def test_each_family_has_cases():
    assert {check["family"] for check, _, _ in CASES} == set(FAMILIES)
    assert {*TRAIN_FAMILIES, *TRANSFER_FAMILIES} == set(FAMILIES)
    assert len(TRAIN_FAMILIES) >= 8 and len(TRANSFER_FAMILIES) >= 4
    assert not set(TRAIN_FAMILIES) & set(TRANSFER_FAMILIES)


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_answers_that_obey_the_rule_and_near_misses(case):
    check, right, wrong = case
    assert [text for text in right if not obeys(check, text)] == []
    assert [text for text in wrong if obeys(check, text)] == []


@pytest.mark.parametrize("case", CASES, ids=ids)
@pytest.mark.parametrize("text", ["", " \n", "...", '""', "- \n- "])
def test_an_empty_answer_obeys_no_rule(case, text):
    assert not obeys(case[0], text)


@pytest.mark.parametrize("case", CASES, ids=ids)
@given(text=st.text())
def test_any_answer_has_a_verdict_that_blanks_around_it_do_not_change(case, text):
    assert obeys(case[0], f" \n{text}\n ") is obeys(case[0], text)


@pytest.mark.parametrize("family", FAMILIES)
def test_generated_checks_are_valid_and_worded(family):
    rule = FAMILIES[family]
    for values in product(*rule.values.values()):
        parameters = dict(zip(rule.values, values, strict=True))
        obeys({"family": family, **parameters}, "a")
        assert "{" not in rule.asks.format(**parameters)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ({}, "given the family None, expected one of lowercase"),
        ({"family": "no_comas"}, "given the family 'no_comas', expected one of"),
        ({"family": "at_most_words"}, "given n = None, expected a value like 8"),
        ({"family": "at_most_words", "n": True}, "given n = True, expected"),
        ({"family": "json_keys", "keys": "name"}, "given keys = 'name', expected"),
    ],
)
def test_a_check_that_is_none_is_refused(check, message):
    with pytest.raises(ValueError, match="check") as error:
        obeys(check, "a")
    assert message in str(error.value)
